"""How much of a datum is masked when: the schedules of absorbing diffusion, and the sets that they mask.

At time t each entry of a datum is masked with probability m(t), independently of the others, from m(0) = 0, the
datum, to m(1) = 1, where nothing is left of it.
"""

import math
from typing import Literal

import torch
from torch import Tensor

MaskingSchedule = Literal["linear", "cosine"]


def masked_share(schedule: MaskingSchedule, t: Tensor) -> Tensor:
    """m(t): t, or sin(π t / 2), which masks more of the time (Chang et al. 2022; Shi et al. 2024, table 1)."""
    return t if schedule == "linear" else (t * (math.pi / 2)).sin()


def time_of_share(schedule: MaskingSchedule, share: Tensor) -> Tensor:
    """The t at which m(t) is `share`."""
    return share if schedule == "linear" else share.asin() * (2 / math.pi)


def times_of_counts(schedule: MaskingSchedule, num_dims: int) -> Tensor:
    """(D + 1,) float64: the times up to which at most n = 0 … D entries are masked, t_n = m⁻¹(n / D)."""
    return time_of_share(schedule, torch.arange(num_dims + 1).double() / num_dims)


def mask_of(noise: Tensor, count: Tensor) -> Tensor:
    """A set of `count` entries, any of that size as likely as another.

    Args:
        noise: (B, D), uniform in [0, 1).
        count: (B,) int64 in [0, D].

    Returns:
        (B, D), bool.
    """
    return rank(noise) < count.unsqueeze(1)


def rank(noise: Tensor) -> Tensor:
    """(B, D): the place of each entry in the ascending order of its row, from 0 on."""
    return noise.argsort(dim=1, stable=True).argsort(dim=1)
