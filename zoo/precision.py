"""Half precision is for networks: data, latents and likelihoods are in float32 at least, whatever the weights."""

import torch
from torch import Tensor, nn


def full_precision(x: Tensor) -> Tensor:
    """Floats in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def to_network(x: Tensor, network: nn.Module) -> Tensor:
    """Floats in the precision of a network's weights, in which it computes; as they are, if it has none."""
    weight = next(network.parameters(), None)
    return x if weight is None else x.to(weight.dtype)
