"""Weights that no device holds whole: each of N processes keeps a share, and gathers what it computes with (FSDP2).

A weight lies in N shares along its first dimension, and so do its gradient, its moments and its average
(Rajbhandari et al. 2020, ZeRO's third stage; Zhao et al. 2023). A part of the network has its weights gathered
just before it runs, forwards or backwards, and dropped afterwards; the gradients of what each process has computed
are averaged into the shares. The arithmetic is that of one process, in which all data are one batch.

What can be spread is a network that says which parts are to be gathered one at a time (`Shardable`).
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@runtime_checkable
class Shardable(Protocol):
    """A network that is only ever called as a whole, so that its weights can be gathered when it is."""

    @property
    def shards(self) -> list[nn.Module]:
        """The parts whose weights are gathered one at a time; what they leave of the network is one more."""


def shard(module: nn.Module, mesh: "DeviceMesh") -> None:
    """Leaves to this process its share of the weights of a model's networks, in place; those of the first process.

    Args:
        module: whose networks are its children, or those of models that are its parts; what is spread already stays
            as it is, and so does what is not trained.
        mesh: of all devices, as Lightning's `ModelParallelStrategy` makes it.

    Raises:
        ValueError: if trainable parameters are not a `Shardable` network's, or the mesh is one for more than that.
    """
    from torch.distributed.fsdp import fully_shard

    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            f"Weights are spread over devices that have data of their own, but of {mesh.size()} devices"
            f" {mesh['tensor_parallel'].size()} are to share a batch: give the strategy tensor_parallel_size=1 and"
            f" data_parallel_size={mesh.size()}."
        )
    over, device = mesh["data_parallel"], torch.device(mesh.device_type, *_index(mesh))
    for network in _outermost(module):
        if _is_spread(network):
            continue
        if not isinstance(network, Shardable) or not any(p.requires_grad for p in network.parameters()):
            _agree(network, device)
            continue
        # it warns of what is done in place to an output that is a view, which nothing here does
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        for part in [*network.shards, network]:
            _agree(part, device)
            # also what is left of the network, which would otherwise stay gathered from one step to the next
            fully_shard(part, mesh=over, reshard_after_forward=True)
    unspread = [name for name, p in module.named_parameters() if p.requires_grad and not is_shared(p)]
    if unspread:
        raise ValueError(
            f"{type(module).__name__} cannot be spread over devices: {unspread[0]} and {len(unspread) - 1} other"
            " parameters belong to no network that says in which parts (`shards`), as a DiT does. Take network: dit"
            " where there is one, and of two stages an autoencoder that is trained, or --trainer.strategy ddp."
        )


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """All networks that can be spread, unless they are within one; and whatever has no such network within."""
    for child in module.children():
        if isinstance(child, Shardable) or not any(isinstance(part, Shardable) for part in child.modules()):
            yield child
        else:
            yield from _outermost(child)


def agree(module: nn.Module) -> None:
    """What is not spread, as the first process has it: Lightning loads that of a checkpoint into that one alone."""
    for tensor in (*module.parameters(), *module.buffers()):
        if not is_shared(tensor):
            torch.distributed.broadcast(tensor.detach(), src=0)


def _agree(part: nn.Module, device: torch.device) -> None:
    """The first process's weights in a part that is not spread yet, on the device."""
    part.to(device)
    agree(part)


def _index(mesh: "DeviceMesh") -> tuple[int, ...]:
    return (torch.cuda.current_device(),) if mesh.device_type == "cuda" else ()


# ---- tensors, be they spread or not


def is_shared(t: Tensor) -> bool:
    """Whether this process has no more than a share of it."""
    return hasattr(t, "full_tensor")


def own(t: Tensor) -> Tensor:
    """This process's share of a tensor, without a copy; of one that is not spread, all."""
    t = t.detach()
    return t.to_local() if is_shared(t) else t  # type: ignore[attr-defined]


def whole(t: Tensor) -> Tensor:
    """All of a tensor. Collective."""
    t = t.detach()
    return t.full_tensor() if is_shared(t) else t  # type: ignore[attr-defined]


def share_of(t: Tensor, like: Tensor) -> Tensor:
    """What belongs to this process's share of `like` of a whole tensor of its shape."""
    if not is_shared(like):
        return t
    mesh: Any = like.device_mesh  # type: ignore[attr-defined]
    chunks = t.chunk(mesh.size())  # fewer than processes, if there are fewer rows
    return chunks[mesh.get_local_rank()] if mesh.get_local_rank() < len(chunks) else t[:0]


#: where PyTorch has put what gathers weights when a part runs, and minds the shares when its state is got or set
HOOKS = (
    *("_forward_pre_hooks", "_forward_hooks"),
    *("_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """All weights on every process, as ordinary parameters, for as long; what is put into them is forgotten after.

    Collective where it begins; within, each process may do what it likes, but train.
    """
    shares = [
        (part, name, weight)
        for part in module.modules()
        for name, weight in part._parameters.items()
        if weight is not None and is_shared(weight)
    ]
    spread = {part: type(part) for part in module.modules() if _is_spread(part)}
    parts = {part for network in spread for part in network.modules()}
    hooks = [(part, name, getattr(part, name)) for part in parts for name in HOOKS]
    wholes = {id(weight): nn.Parameter(whole(weight), weight.requires_grad) for _, _, weight in shares}
    for part, name, weight in shares:
        part._parameters[name] = wholes[id(weight)]
    for part, name, ones in hooks:
        setattr(part, name, type(ones)())
    for part in spread:
        part.__class__ = type(part).__mro__[
            2
        ]  # FSDPDiT(FSDPModule, DiT), which takes `to` for a change of its shares
    try:
        yield
    finally:
        for part, name, weight in shares:
            part._parameters[name] = weight
        for part, name, ones in hooks:
            setattr(part, name, ones)
        for part, kind in spread.items():
            part.__class__ = kind


def _is_spread(part: nn.Module) -> bool:
    from torch.distributed.fsdp import FSDPModule

    return isinstance(part, FSDPModule)


# ---- what it takes


class Memory(NamedTuple):
    """Bytes on each device."""

    kept: int  # its share of the weights, their gradients, moments and average
    gathered: int  # of whole parts, at most, while the gradients are computed
    activations: int  # what the way forwards keeps for the way back, of the device's own data

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def memory(
    build: Callable[[], nn.Module], batch: int, devices: int, *, moments: int = 2, averages: int = 1
) -> Memory:
    """What training takes on each device; computed from a network of no content, in float32.

    Args:
        build: makes a `DiT`.
        batch: data on each device.
        devices: over which the weights are spread.
        moments: of a weight that the optimiser keeps: two for Adam, one for `Muon`'s matrices.
        averages: 1 with `EMA`, else 0.
    """
    with FakeTensorMode():
        network: Any = build().train()
        shares = [math.ceil(len(p) / devices) * p[0].numel() * p.itemsize for p in network.parameters()]
        parts = [_bytes(part.parameters()) for part in network.shards]
        # of the largest part: weights as they arrive and in their places, those of the next part in theirs, gradients
        # in their places and as they leave; of what is in no part: weights and gradients
        gathered = 5 * max(parts) + 2 * (_bytes(network.parameters()) - sum(parts))
        saved = _saved(network, batch)
        return Memory((2 + moments + averages) * sum(shares), gathered, saved)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)


def _saved(network: Any, batch: int) -> int:
    """Bytes that a forward pass keeps: all of it, or, where parts are computed once more, the most of one, and the
    inputs of all.
    """
    seen = {p.untyped_storage()._cdata for p in network.parameters()}
    held: list[torch.UntypedStorage] = []

    def note(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            held.append(storage)
        return t

    def so_far() -> int:
        return sum(storage.nbytes() for storage in held)

    inputs: list[int] = []
    before: list[int] = []
    after: list[int] = []

    def begins(_: nn.Module, given: tuple[Any, ...]) -> None:
        inputs.append(given[0].nbytes)
        before.append(so_far())

    def ends(*_: Any) -> None:
        after.append(so_far())

    for part in network.shards:
        part.register_forward_pre_hook(begins)
        part.register_forward_hook(ends)
    recomputes, network.checkpointing = network.checkpointing, False
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        network(torch.zeros(batch, *network.shape), torch.zeros(batch))
    each = [end - begin for begin, end in zip(before, after, strict=True)]
    return so_far() - sum(each) + sum(inputs) + max(each) if recomputes else so_far()
