"""A multilayer perceptron of gated residual blocks."""

from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.networks.linear import Linear


class MLP(nn.Module):
    """From flat vectors to flat vectors: a linear layer, `depth` gated residual blocks, a linear layer.

    Args:
        in_features: of the input, which is flattened from dimension 1 on.
        out_features: of the output.
        width: of the hidden layers.
        depth: how many residual blocks, 0 or more.
    """

    def __init__(self, in_features: int, out_features: int, *, width: int = 512, depth: int = 2) -> None:
        super().__init__()
        self.inlet = Linear(in_features, width)
        self.blocks = nn.ModuleList(GatedBlock(width) for _ in range(depth))
        self.outlet = Linear(width, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) with in_features numbers each to (B, out_features)."""
        h = self.inlet(x.flatten(1))
        for block in self.blocks:
            h = block(h)
        return self.outlet(F.silu(h))


class GatedBlock(nn.Module):
    """h + a · σ(b), where (a, b) = W silu(h): a gated linear unit (Dauphin et al. 2017) around a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, 2 * width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, width) to (B, width)."""
        return h + F.glu(self.linear(F.silu(h)), dim=-1)
