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

    What was stated stays: `fused: false` or a `foreach` are somebody's wish. So it is with a checkpoint, whatever the
    optimiser: the moments and the learning rate are taken from it (or not even that, see
    `learning_rates.leave_to_another`), and all else, be it a weight decay, is as the run that goes on states it.

    The gradients come to the kernel unscaled, as to any other optimiser. Lightning refuses to clip them where the
    kernel itself is to divide by the scale of `16-mixed`, and takes every fused Adam for such a one, also in
    `bf16-mixed`, where there is no scale.

    Args:
        optimizer: as it was built.

    Returns:
        The same one.
    """
    optimizer.register_load_state_dict_pre_hook(_as_stated)
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


def _as_stated(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    if len(state["param_groups"]) != len(optimizer.param_groups):
        return state  # PyTorch will complain
    groups = []
    for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
        unknown, missing = (a.keys() - b.keys() - MOVED for a, b in ((saved, own), (own, saved)))
        if unknown and missing:  # another version of the same one has more, or less
            raise ValueError(
                f"The checkpoint is of a training with another optimiser than {type(optimizer).__name__}, one that"
                f" has {', '.join(sorted(unknown))}: resume with that one, or begin a training with its weights"
                " (StartFrom; genzoo fit --from)."
            )
        of_the_past = MOVED | {"params"} | ({"betas", "momentum"} if "max_momentum" in saved else set())
        groups.append(own | {name: value for name, value in saved.items() if name in of_the_past})
    return state | {"param_groups": groups}
