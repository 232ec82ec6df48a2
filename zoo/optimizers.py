"""How an optimiser's steps are computed: by one fused kernel for all parameters, wherever the device has it.

Nothing here changes what a step comes to, beyond the rounding of its last digit.
"""

import os
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices  # there is no public way to ask for it


def fused(optimizer: Optimizer) -> Optimizer:
    """Adam and AdamW by PyTorch's fused kernel, in a third of the time; any other optimiser as it is.

    What was stated stays: `fused: false` or a `foreach` are somebody's wish. So it is with a checkpoint: the state is
    taken from it, how to go on is not, and one written without the fused kernel goes on with it.

    The gradients come to the kernel unscaled, as to any other optimiser. Lightning refuses to clip them where the
    kernel itself is to divide by the scale of `16-mixed`, and takes every fused Adam for such a one, also in
    `bf16-mixed`, where there is no scale.

    Args:
        optimizer: as it was built.

    Returns:
        The same one.
    """
    optimizer.register_load_state_dict_pre_hook(_computed_as_here)
    optimizer._stated = [  # type: ignore[attr-defined]
        {name: value for name, value in group.items() if name not in ("params", "fused", "foreach")}
        for group in optimizer.param_groups
    ]
    if not isinstance(optimizer, Adam | AdamW):
        return optimizer
    if not torch.cuda.is_available() and torch.cuda._device_count_nvml() < 0:  # there is no driver, of AMD's neither
        # Each step asks for a GPU, and Lightning has PyTorch look for the driver's library at each such question.
        # Where there is none it looks again each time, which takes a small model a fiftieth of its step.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    for group in (optimizer.defaults, *optimizer.param_groups):  # the defaults are those of groups added later
        unstated = group["fused"] is None and group["foreach"] is None and not group["differentiable"]
        if unstated and has_fused_kernels([p for g in optimizer.param_groups for p in g["params"]]):
            group["fused"] = True
    optimizer._step_supports_amp_scaling = False
    optimizer.register_load_state_dict_post_hook(lay_out_state)
    optimizer.register_step_pre_hook(_lay_out_gradients)
    return optimizer


def has_fused_kernels(parameters: list[Tensor]) -> bool:
    """Whether PyTorch's fused kernels take all of these."""
    devices = _get_fused_kernels_supported_devices()
    return all(p.device.type in devices and p.is_floating_point() for p in parameters)


def laid_out(t: Tensor, like: Tensor) -> Tensor:
    """A tensor with its values where `like`, of the same shape, has them in memory.

    The fused kernels walk through memory. They give a weight in `channels_last` the update of another one if its
    gradient or its moments are not in that order, and say nothing of it.
    """
    return t if t.stride() == like.stride() else torch.empty_like(like, dtype=t.dtype).copy_(t)


def lay_out_state(optimizer: Optimizer) -> None:
    """Lays out moments as the weights: a checkpoint may be older than the order in which a network has them now."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = laid_out(value, parameter)


def _lay_out_gradients(optimizer: Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                parameter.grad = laid_out(parameter.grad, parameter)


#: what schedules move, or note in a group
MOVED = {"lr", "initial_lr", "min_lr", "max_lr", "base_momentum", "max_momentum"}
MOMENTA = {"betas", "momentum"}  # and these, if they note a momentum


def state_again(optimizer: Optimizer, *, arguments: bool, rates: bool) -> None:
    """Gives an optimiser that was restored what it states in this run.

    Args:
        optimizer: as `fused` returned it.
        arguments: all but what a schedule may have moved: a weight decay, say.
        rates: what a schedule may have moved.
    """
    for group, stated in zip(optimizer.param_groups, getattr(optimizer, "_stated", ()), strict=False):
        moved = MOVED | (MOMENTA if "max_momentum" in group else set())
        if rates:
            for name in MOVED & group.keys():
                del group[name]
        group.update({name: value for name, value in stated.items() if (rates if name in moved else arguments)})


def _computed_as_here(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    if len(state["param_groups"]) != len(optimizer.param_groups):
        return state  # PyTorch will complain
    groups = []
    for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
        unknown, missing = (a.keys() - b.keys() - MOVED - MOMENTA for a, b in ((saved, own), (own, saved)))
        if unknown and missing:  # another version of the same one has more, or less
            raise ValueError(another(type(optimizer).__name__, f"one that has {', '.join(sorted(unknown))}"))
        here = {name: own[name] for name in ("fused", "foreach") if name in own}
        groups.append(own | saved | here)
    return state | {"param_groups": groups}


def another(own: str, theirs: str) -> str:
    """What is said of a checkpoint whose optimiser is another one."""
    return (
        f"The checkpoint is of a training with another optimiser than {own}, {theirs}: resume with that one, or begin"
        " a training with its weights (StartFrom; genzoo fit --from)."
    )
