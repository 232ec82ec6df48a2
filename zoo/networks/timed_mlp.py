"""A multilayer perceptron for noisy points, told their noise level and class."""

from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.networks.conditioning import Conditioning
from genzoo.zoo.networks.linear import Linear


class TimedMLP(nn.Module):
    """From points and their noise levels to points: residual blocks, each modulated by the noise level.

    Args:
        num_dims: D.
        width: hidden units.
        blocks: how many residual blocks.
        num_classes: how many classes `labels` may name; None: the network takes no labels.
    """

    def __init__(self, num_dims: int, *, width: int = 64, blocks: int = 3, num_classes: int | None = None) -> None:
        super().__init__()
        self.conditioning = Conditioning(width, num_classes)
        self.inlet = Linear(num_dims, width)
        self.blocks = nn.ModuleList(TimedBlock(width) for _ in range(blocks))
        self.outlet = Linear(width, num_dims)

    @property
    def hidden(self) -> list[nn.Module]:
        """All that lies between the inlet and the outlet, whose matrices are `Muon`'s."""
        return [self.blocks]

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, D), (B,) and (B,) or None to (B, D); arguments as in `UNet`."""
        condition = F.silu(self.conditioning(c_noise, labels))
        h = self.inlet(x)
        for block in self.blocks:
            h = block(h, condition)
        return self.outlet(F.silu(h))


class TimedBlock(nn.Module):
    """h + W₂ silu(a · W₁ silu(h) + b), with (a, b) from the condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Linear(width, width)
        self.modulation = Linear(width, 2 * width)
        self.second = Linear(width, width)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """(B, width) and (B, width) to (B, width)."""
        scale, shift = self.modulation(condition).chunk(2, dim=1)
        return h + self.second(F.silu(self.first(F.silu(h)) * (1 + scale) + shift))
