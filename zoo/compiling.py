"""`torch.compile` of a model's networks, in place: its weights, and its checkpoints, keep their names."""

from collections.abc import Iterator

import torch
from lightning.pytorch import LightningModule
from torch import nn


def networks(module: nn.Module) -> dict[str, nn.Module]:
    """The networks of a model, by name: the parts, and of a list of parts each one, that it calls as a whole.

    They have parameters, a `forward`, and parts of their own: a single layer is no faster compiled. A part of which
    the model takes second derivatives (`differentiated_twice`) is none of them: compiled code has no second
    derivatives. Of a model in the model, such as a prior over codes, they are that one's own.
    """
    once = {k: v for k, v in module.named_children() if k not in getattr(module, "differentiated_twice", ())}
    lists = {
        f"{k}.{i}": part for k, v in once.items() if isinstance(v, nn.ModuleList) for i, part in v.named_children()
    }
    found: dict[str, nn.Module] = {}
    for name, part in {**once, **lists}.items():
        if isinstance(part, LightningModule):
            found |= {f"{name}.{inner}": network for inner, network in networks(part).items()}
        elif (
            type(part).forward is not nn.Module.forward and _has_any(part.parameters()) and _has_any(part.children())
        ):
            found[name] = part
    return found


def compile_networks(module: nn.Module, device: torch.device | str = "cpu") -> list[str]:
    """Compiles a model's networks in place; each at its first call, and anew for other shapes.

    Args:
        module: the model.
        device: where it will run.

    Returns:
        The names of the networks.

    Raises:
        ValueError: if it has none that can be compiled, or nothing can be compiled here.
    """
    found = networks(module)
    if not found:
        raise ValueError(f"compile: {type(module).__name__} has no network that can be compiled: leave it out")
    try:
        torch.compile(_double)(torch.ones(8, device=device))
    except Exception as error:  # no compiler, no headers, no Triton, a Python that is too new: each has its own
        first = next(filter(None, str(error).splitlines()), type(error).__name__)
        raise ValueError(f"compile: torch.compile does not work here: {first}") from error
    for network in found.values():
        network.compile()
    return list(found)


def _double(x: torch.Tensor) -> torch.Tensor:
    return x + x


def _has_any(items: Iterator[object]) -> bool:
    return next(items, None) is not None
