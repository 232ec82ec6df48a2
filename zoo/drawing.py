"""Drawing from a module, of anybody's, the same way every time."""

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor


@contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """A generator of this seed; the global random states start from it too, and are put back at the end.

    A callback that draws inside leaves training bit for bit as it would have been without the callback, also where
    something in it fails.
    """
    failed: BaseException | None = None
    # of Apple's accelerator Lightning knows nothing
    apple = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with isolate_rng():  # which puts nothing back after an exception
        for seed_all in (random.seed, torch.manual_seed, lambda seed: np.random.seed(seed % 2**32)):
            seed_all(seed)
        try:
            yield torch.Generator().manual_seed(seed)
        except BaseException as error:
            failed = error
    if apple is not None:
        torch.mps.set_rng_state(apple)
    if failed is not None:
        raise failed


def draw(sample: Callable[..., Tensor], num_samples: int, seed: int) -> Tensor:
    """`sample(num_samples)` for a fixed seed, without moving any random state.

    The `generator` argument of genzoo's interface is used where the method has it; a method without it draws
    from the global state, seeded for the occasion.
    """
    with seeded(seed) as generator:
        return sample(num_samples, **supported(sample, generator=generator))


def supported(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Those of the keyword arguments that the function takes."""
    taken = arguments_of(function)
    return {name: value for name, value in options.items() if name in taken or "**" in taken}


def arguments_of(function: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """What a function takes: the name of each argument, with the function that states it; "**" is any.

    A model of two stages hands on what its method takes as `**` to the same method of its `prior`, and so takes what
    that one does.
    """
    parameters = inspect.signature(function).parameters.values()
    taken = {"**" if p.kind is p.VAR_KEYWORD else p.name: function for p in parameters}
    prior = getattr(getattr(function, "__self__", None), "prior", None)
    handed_to = getattr(prior, getattr(function, "__name__", ""), None)
    if "**" in taken and handed_to is not None:
        del taken["**"]
        return arguments_of(handed_to) | taken
    return taken


def blocks(num_samples: int, batch_size: int, seed: int) -> list[tuple[int, int, int]]:
    """Cuts a large draw into blocks (start, size, seed), the same however many processes share them out."""
    starts = range(0, num_samples, batch_size)
    generator = torch.Generator().manual_seed(seed)
    seeds = torch.randint(2**62, (len(starts),), generator=generator).tolist()
    return [(start, min(batch_size, num_samples - start), s) for start, s in zip(starts, seeds, strict=True)]
