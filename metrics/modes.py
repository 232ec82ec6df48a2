"""How many of the modes of a mixture of Gaussians a set of samples has found."""

import math

import torch
from torch import Tensor

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
        ValueError: if samples and centres are not points of one space, there are none, or std is not above 0.
    """
    if samples.ndim != 2 or centres.ndim != 2 or samples.shape[1] != centres.shape[1] or not len(samples):
        raise ValueError(
            f"mode_coverage takes samples (N, D) and centres (K, D), but was given {tuple(samples.shape)} and"
            f" {tuple(centres.shape)}."
        )
    if not std > 0:
        raise ValueError(f"mode_coverage: std is {std}, but a component has a width above 0.")
    centres = centres.to(samples.device, torch.float64)
    distance, nearest = torch.cdist(samples.double(), centres, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = distance <= WITHIN * std
    share = nearest.bincount(minlength=len(centres)).double() / len(samples)
    return {
        "modes": float(nearest[good].unique().numel()),
        "high_quality": float(good.double().mean()),
        "mode_kl": float(torch.special.xlogy(share, share).sum() + math.log(len(centres))),
    }
