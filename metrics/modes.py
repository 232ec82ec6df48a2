"""How many of the modes of a mixture of Gaussians a set of samples has found."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.metrics.base import Measure, double

WITHIN = 3.0  # standard deviations from a centre within which a sample is of high quality


def mode_coverage(samples: Tensor, centres: Tensor, std: float) -> dict[str, float]:
    """Modes found, share of good samples, and how evenly they are spread.

    The convention is that of VEEGAN (Srivastava et al. 2017) and PacGAN (Lin et al. 2018): a sample belongs to the
    centre that is nearest to it, and is of high quality if it lies within three standard deviations of it; a mode is
    found if one sample of high quality belongs to it (they drew 2,500). Perfect samples in D = 2 dimensions are of
    high quality with probability 1 − exp(−9/2) = 0.989, and their divergence is about (K − 1) / 2N.

    Args:
        samples: (N, D).
        centres: (K, D), of components that are equally likely.
        std: of each component, in every direction.

    Returns:
        "modes": how many of the K are found. "high_quality": the share of samples of high quality, in [0, 1].
        "mode_kl": Σ_k p_k log(K p_k) in nats, with p_k the share of samples that belong to k; from 0 to log K.

    Raises:
        ValueError: if samples and centres are not points of one space, there are none, some are not finite, or std
            is not above 0.
    """
    return _scores(*_counts(samples, centres, std))


def _counts(samples: Tensor, centres: Tensor, std: float) -> tuple[Tensor, Tensor]:
    """(K,) each: how many samples belong to each centre, and how many of them are of high quality."""
    if samples.ndim != 2 or centres.ndim != 2 or samples.shape[1] != centres.shape[1] or not len(samples):
        raise ValueError(
            f"mode_coverage takes samples (N, D) and centres (K, D), but was given {tuple(samples.shape)} and"
            f" {tuple(centres.shape)}."
        )
    if not 0 < std < math.inf:
        raise ValueError(f"mode_coverage: std is {std}, but a component has a finite width above 0.")
    for what, x in (("samples", samples), ("centres", centres)):
        if not x.isfinite().all():  # the nearest centre to NaN would be the first
            bad = int((~x.isfinite()).any(1).sum())
            raise ValueError(f"mode_coverage: {bad} of {len(x)} {what} hold NaN or infinite values.")
    samples = double(samples)
    centres = centres.to(samples)
    distance, nearest = torch.cdist(samples, centres, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = distance <= WITHIN * std
    return nearest.bincount(minlength=len(centres)), nearest[good].bincount(minlength=len(centres))


def _scores(belonging: Tensor, good: Tensor) -> dict[str, float]:
    share = belonging.double() / belonging.sum()
    return {
        "modes": float((good > 0).sum()),
        "high_quality": float(good.sum() / belonging.sum().double()),
        "mode_kl": float(torch.special.xlogy(share, share).sum() + math.log(len(share))),
    }


class ModeCoverage(Measure):
    """Modes found, share of good samples, and how evenly they are spread (`mode_coverage`).

    Args:
        centres: (K, D), of components that are equally likely.
        std: of each component, in every direction.
        kwargs: torchmetrics' own.
    """

    belonging: Tensor
    good: Tensor

    def __init__(self, centres: Tensor | Sequence[Sequence[float]], std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("centres", torch.as_tensor(centres, dtype=torch.float64), persistent=False)
        self.std = std
        for name in ("belonging", "good"):
            self.add_state(name, torch.zeros(len(centres), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, samples: Tensor) -> None:
        """Adds samples, (N, D).

        Raises:
            ValueError: if they and the centres are not points of one space, there are none, some are not finite, or
                std is not above 0.
        """
        belonging, good = _counts(samples, self.centres, self.std)  # type: ignore[arg-type]
        self.belonging = self.belonging + belonging.to(self.belonging.device)
        self.good = self.good + good.to(self.good.device)

    def compute(self) -> dict[str, Tensor]:
        """By name, float64: "modes", "high_quality" and "mode_kl".

        Raises:
            ValueError: of no samples.
        """
        if not self.belonging.sum():
            raise ValueError("ModeCoverage has seen no samples.")
        scores = _scores(self.belonging, self.good)
        return {name: torch.tensor(x, dtype=torch.float64, device=self.good.device) for name, x in scores.items()}

    def standard_error(self) -> dict[str, float]:
        """Of "high_quality" and "mode_kl" under new draws of the samples. Collective.

        The first is a binomial share. The second, Σ_k p_k log(K p_k), has the variance Var_p(log p) / N to first
        order, and (K − 1) / 2N² to second, which is all of it where the shares are equal (½ χ² / N with K − 1 degrees
        of freedom; Wilks 1938). The measured first order has the second in it, twice.
        """
        with self.synced():
            n = self.belonging.sum().double()
            share = self.belonging / n
            good = self.good.sum() / n
        log = share.clamp_min(torch.finfo(share.dtype).tiny).log()
        both_orders = ((share * log.square()).sum() - (share * log).sum().square()) / n
        second = ((share > 0).sum() - 1) / (2 * n**2)
        return {
            "high_quality": (good * (1 - good) / n).sqrt().item(),
            "mode_kl": torch.maximum(both_orders - second, second).sqrt().item(),
        }
