"""Noise that can be repeated: where every family draws its random numbers.

A seed should give the same picture on every device, and an evaluated figure should not depend on how the dataset
was cut into batches. So noise drawn from a `torch.Generator` is drawn on that generator's own device and moved,
and `PerDatum` gives each datum a stream of its own.
"""

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from genzoo.zoo.processes import agree, rank, world_size


def draw_apart() -> None:
    """Gives each process but the first another stream of random numbers.

    They are seeded alike, so that all begin at the same weights; in training they would go on to draw the same noise
    for data that are not the same.
    """
    if number := rank():
        torch.manual_seed(_hash(str(torch.initial_seed()).encode(), number))


def random_states() -> list[Tensor]:
    """PyTorch's own, of the CPU and of each GPU."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *gpus, *([torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [])]


def restore_random_states(states: Sequence[Tensor]) -> None:
    """Puts them back; those of GPUs where there are as many as then, of the same kind."""
    cpu, *gpus = (state.cpu() for state in states)
    torch.set_rng_state(cpu)
    if not gpus or [len(state) for state in gpus] != [len(state) for state in random_states()[1:]]:
        return
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(gpus[: torch.cuda.device_count()])
    if torch.backends.mps.is_available():
        torch.mps.set_rng_state(gpus[-1])


ORDERED = "_has_its_generator_from_genzoo"  # a sampler


def order_together(loaders: Any, epoch: int) -> None:
    """Gives samplers that Lightning has each process list, and take its share of, one order in all. Collective.

    They would draw it from streams that are not the same any more, so that some data came twice and others never. It
    is that of the first process's seed and the epoch, also in a run that goes on.

    Args:
        loaders: of the training data, any collection.
        epoch: its number.
    """
    if world_size() == 1:
        return
    seed = agree(torch.initial_seed())
    for loader in tree_leaves(loaders):
        of_batches = getattr(loader, "batch_sampler", None)
        for sampler in (getattr(loader, "sampler", None), getattr(of_batches, "sampler", None)):
            listed: Any = getattr(getattr(sampler, "dataset", None), "_sampler", None)
            if not hasattr(listed, "generator"):
                continue
            if listed.generator is None or hasattr(listed, ORDERED):
                listed.generator = torch.Generator().manual_seed(_hash(str(seed).encode(), epoch))
                setattr(listed, ORDERED, True)


class PerDatum:
    """A batch of random streams, one for each datum, seeded by the datum's own bytes.

    What is drawn for a datum is then the same in any batch, in any order and on any number of processes: with it,
    a dataset's likelihood is one number. Two equal data share their noise, which leaves each estimate unbiased.

    Args:
        x: (B, ...), the data. Successive draws go on along each stream.
        seed: another seed gives other, independent streams.
    """

    def __init__(self, x: Tensor, seed: int = 0) -> None:
        rows = x.detach().to("cpu", torch.float32 if x.is_floating_point() else x.dtype).contiguous().numpy()
        self.streams = [torch.Generator().manual_seed(_hash(row.tobytes(), seed)) for row in rows]

    def __len__(self) -> int:
        return len(self.streams)

    def of(self, rows: Sequence[int]) -> "PerDatum":
        """The streams of some of the data: what they draw, these have drawn."""
        chosen = copy(self)
        chosen.streams = [self.streams[row] for row in rows]
        return chosen

    def repeated(self, times: int) -> "PerDatum":
        """Streams for `times` of each datum, (times, B) laid flat: the first go on along these, the rest are others.

        Those others depend on the datum and on how far its stream has come, so that they, too, never repeat.
        """
        states = [stream.get_state().numpy().tobytes() for stream in self.streams] if times > 1 else []
        others = [torch.Generator().manual_seed(_hash(state, k)) for k in range(1, times) for state in states]
        repeated = copy(self)
        repeated.streams = self.streams + others
        return repeated


Generator = torch.Generator | PerDatum


def check_generator(generator: Generator | None) -> None:
    """Raises TypeError unless it is a source of random numbers, or None."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(
            f"generator is a torch.Generator, a PerDatum or None, but was given {type(generator).__name__}: a seed is"
            " given by torch.Generator().manual_seed(seed)."
        )


def repeatable(generator: Generator | None, device: torch.device) -> Generator:
    """The generator; None becomes one whose seed is drawn from the global state."""
    check_generator(generator)
    if generator is not None:
        return generator
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))


def twin(generator: Generator) -> Generator:
    """Another generator that draws what this one is going to draw; neither goes on with the other."""
    if isinstance(generator, PerDatum):
        other = copy(generator)
        other.streams = [twin(stream) for stream in generator.streams]  # type: ignore[misc]
        return other
    return torch.Generator(generator.device).set_state(generator.get_state())


def normal(size: Sequence[int], *, like: Tensor, generator: Generator | None = None, batch_dim: int = 0) -> Tensor:
    """Standard normal noise of the given size, on the device and in the dtype of `like`.

    Args:
        size: the shape of the result.
        like: gives device and dtype.
        generator: None draws from the global state of the device; a `PerDatum` from its streams.
        batch_dim: which dimension of `size` counts the data (for a `PerDatum`).

    Raises:
        ValueError: if a `PerDatum` holds another number of streams than `size[batch_dim]`.
    """
    return _draw(torch.randn, size, like, generator, batch_dim)


def uniform(size: Sequence[int], *, like: Tensor, generator: Generator | None = None, batch_dim: int = 0) -> Tensor:
    """Uniform noise in [0, 1) of the given size; arguments as in `normal`."""
    return _draw(torch.rand, size, like, generator, batch_dim)


def choose_component(logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A component of a mixture by the inverse of its distribution function, and what is left of the noise.

    Given that component k is chosen, (u − Σ_{j<k} π_j) / π_k is uniform again: one number draws both the component
    and a value from it.

    Args:
        logits: (B, K, ...), of π.
        noise: (B, ...), u, uniform in [0, 1).

    Returns:
        (B, 1, ...) int64, and (B, ...) in [1e-6, 1 − 1e-6].
    """
    probability = logits.softmax(1)
    upto = probability.cumsum(1)  # whose last is not quite 1
    chosen = (upto[:, :-1] <= noise.unsqueeze(1) * upto[:, -1:]).sum(1, keepdim=True)
    upto, probability = (t.gather(1, chosen).squeeze(1) for t in (upto, probability))
    return chosen, ((noise - upto) / probability + 1).clamp(1e-6, 1 - 1e-6)


def _draw(
    sampler: Callable[..., Tensor],
    size: Sequence[int],
    like: Tensor,
    generator: Generator | None,
    batch_dim: int,
) -> Tensor:
    check_generator(generator)
    if generator is None:
        return sampler(tuple(size), device=like.device, dtype=like.dtype)
    if isinstance(generator, torch.Generator):
        return sampler(tuple(size), generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
    if len(generator) != size[batch_dim]:
        raise ValueError(
            f"The PerDatum generator was made for {len(generator)} data, but noise for {size[batch_dim]} was asked"
            f" for (dimension {batch_dim} of {tuple(size)}). Make it from the same batch: PerDatum(x)."
        )
    rest = [n for i, n in enumerate(size) if i != batch_dim]
    rows = [sampler(rest, generator=stream, dtype=like.dtype) for stream in generator.streams]
    return torch.stack(rows, batch_dim).to(like.device)


def _hash(data: bytes, seed: int) -> int:
    digest = hashlib.blake2b(data, digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little") >> 1  # manual_seed takes 63 bits
