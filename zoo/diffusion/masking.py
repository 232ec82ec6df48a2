"""How much of a datum is masked when: the schedules of absorbing diffusion, and in which step a sampler fills what.

At time t each entry of a datum is masked with probability m(t), independently of the others, from m(0) = 0, the
datum, to m(1) = 1, where nothing is left of it. An entry i that is given a number v_i, uniform in [0, 1), is masked
as long as v_i < m(t): backwards in time, where m falls, that is the moment at which it is filled in.
"""

import math
from typing import Literal

import torch
from torch import Tensor

MaskingSchedule = Literal["linear", "cosine"]
Unmasking = Literal["first-hitting", "ancestral", "confidence"]


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


def first_hitting_turns(masked: Tensor, noise: Tensor, steps: int) -> Tensor:
    """In which step each entry is filled in: one after another, in any order as likely as another.

    In continuous time no two entries are filled in at once, and since the network is not told the time, it does not
    matter when they are (Zheng et al. 2025, "Masked diffusion models are secretly time-agnostic masked models"). So
    where there are as many steps as masked entries, nothing is approximated. Where there are fewer, each fills in
    as many as another, but for one.

    Args:
        masked: (B, D), bool: what is to be filled in.
        noise: (B, D), uniform in [0, 1).
        steps: at least 1.

    Returns:
        (B, D) int64, from 0 on; −1 where not masked.
    """
    count = masked.sum(1, keepdim=True)
    turns = rank(noise.masked_fill(~masked, 2)) * count.clamp_max(steps) // count.clamp_min(1)
    return torch.where(masked, turns, -1)


def ancestral_turns(masked: Tensor, noise: Tensor, steps: int, schedule: MaskingSchedule) -> Tensor:
    """In which step each entry is filled in, where time goes from 1 to 0 in equal steps.

    From t to s an entry that is still masked is filled in with probability (m(t) − m(s)) / m(t) (Sahoo et al. 2024,
    eq. 6): it is if m(s) ≤ v < m(t). Arguments and result as in `first_hitting_turns`.
    """
    times = torch.arange(steps + 1, dtype=torch.float64, device=noise.device) / steps
    later = torch.searchsorted(masked_share(schedule, times).to(noise.dtype), noise, right=True).clamp_max(steps)
    return torch.where(masked, steps - later, -1)
