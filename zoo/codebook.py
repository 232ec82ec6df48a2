"""How a data set uses the codes of an autoencoder: a codebook that has collapsed uses few of them."""

import torch
from torch import Tensor


def codebook_figures(counts: Tensor) -> dict[str, Tensor]:
    """How a dataset uses the codes.

    Args:
        counts: (K,), how often each code occurs.

    Returns:
        "codebook_usage", the share of codes that occur, in [0, 1], and "codebook_perplexity", exp H of their
        distribution, from 1 (all the same) to K (all alike); float64 scalars.
    """
    shares = counts.double() / counts.sum()
    return {
        "codebook_usage": (counts > 0).double().mean(),
        "codebook_perplexity": torch.special.entr(shares).sum().exp(),
    }
