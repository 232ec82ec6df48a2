"""The network that denoises: one of ours by its name, in a size that suits the data or is stated; or one's own."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import nn

from genzoo.zoo.checks import check_count, check_networks
from genzoo.zoo.memory import within_memory
from genzoo.zoo.modality import Modality
from genzoo.zoo.networks.dit import DiT
from genzoo.zoo.networks.timed_mlp import TimedMLP
from genzoo.zoo.networks.unet import UNet

Name = Literal["unet", "mlp", "dit"]
OURS = UNet | TimedMLP | DiT

#: which are for what data, the usual one first
FOR: Mapping[Modality, Sequence[Name]] = {
    "image": ("unet", "dit"),
    "points": ("mlp",),
    "series": ("dit",),
}
#: the sizes that each of them takes
SIZES: Mapping[Name, set[str]] = {
    "unet": {"patch", "width", "multipliers", "blocks", "attention", "dropout"},
    "mlp": {"width", "blocks"},
    "dit": {"patch", "width", "depth", "heads", "dropout", "checkpointing"},
}
COUNTS = {"patch", "width", "blocks", "depth", "heads", "expansion"}
#: these mean nothing, rather than a mistake, where no network is named: so it was before there were names
FORGIVEN = {"width", "multipliers", "blocks", "attention", "dropout"}


def network_of(
    network: Name | nn.Module | None,
    shape: Sequence[int],
    modality: Modality,
    num_classes: int | None,
    sizes: Mapping[str, Any],
) -> nn.Module:
    """The network of a diffusion model.

    Args:
        network: one's own, one of ours by name, or None for the usual one for such data.
        shape: of one datum.
        modality: of the data, one of those in `FOR`.
        num_classes: how many classes it is told of; None: of none.
        sizes: any of those in `SIZES`; None is one that was not given.

    Raises:
        ValueError: if the network is not for such data or has no such sizes, or there is no memory for it.
    """
    name = FOR[modality][0] if network is None else network
    if not isinstance(name, str):
        check_networks(network=name)
    elif name not in FOR[modality]:
        ours = " or ".join(map(repr, FOR[modality]))
        raise ValueError(f"network={name!r}: for {modality} data choose {ours}, or give a module of your own.")
    taken = SIZES[name] if isinstance(name, str) else set()
    own = checked_sizes(name, sizes, taken, set() if isinstance(network, str) else FORGIVEN)
    if isinstance(name, nn.Module):
        return name
    build: Callable[..., nn.Module]
    if name == "unet":
        build, less = partial(UNet, shape, multipliers=None), "a smaller width, or fewer blocks or multipliers"
    elif name == "mlp":
        build, less = partial(TimedMLP, math.prod(shape)), "a smaller width, or fewer blocks"
    else:
        build, less = partial(DiT, shape), "a smaller width or depth"
    return within_memory(partial(build, num_classes=num_classes, **own), less)


def checked_sizes(
    network: str | nn.Module, sizes: Mapping[str, Any], taken: set[str], forgiven: set[str]
) -> dict[str, Any]:
    """Those of the sizes that were given (not None) and that the network takes.

    Args:
        network: one's own, or the name of one of ours.
        sizes: that are stated.
        taken: by the network.
        forgiven: what is left out, if it does not take them; all others are a mistake.

    Raises:
        ValueError: if it takes no such size, or one that is to be a whole number of at least 1 is none.
    """
    given = {size: value for size, value in sizes.items() if value is not None}
    if foreign := sorted(given.keys() - taken - forgiven):
        whose = f"network={network!r}" if isinstance(network, str) else "a network of your own"
        raise ValueError(
            f"{', '.join(f'{size}={given[size]!r}' for size in foreign)}: {whose} has no such size; leave it out"
            f" (null){f', or choose from {sorted(taken)}' if taken else ''}."
        )
    own = {size: value for size, value in given.items() if size in taken}
    for size in COUNTS & own.keys():
        check_count(size, own[size])
    return own
