"""What keeps the discriminator tame: penalties on its gradient, a constraint on its weights, several data at once.

A penalty is a norm over *all* dimensions of each datum (not over channels, not over the batch), in the coordinates
that the discriminator is given: images in [−1, 1]. It is computed outside autocast, because a gradient of a gradient
in half precision is noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from genzoo.zoo.randomness import uniform

Critic = Callable[[Tensor], Tensor]  # (B, ...) to (B,)


class Regulariser:
    """A change to the discriminator, a penalty on it, or both; the base class is neither."""

    #: how many data the discriminator is shown at a time
    size: int = 1

    @property
    def name(self) -> str:
        """Under which the penalty is logged."""
        return type(self).__name__.lower()

    def constrain(self, discriminator: nn.Module) -> None:
        """Changes the network once, when the model is built."""

    def is_due(self, step: int) -> bool:
        """Whether there is a penalty in this step of the discriminator, the first being 0."""
        return False

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """(B,), added to the discriminator's loss in the steps in which it is due."""
        raise NotImplementedError(f"{type(self).__name__} is no penalty.")


def squared_gradient_norm(critic: Critic, x: Tensor) -> Tensor:
    """‖∇ₓ D(x)‖² of every datum, (B,), differentiable in D's weights."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(1).square().sum(1)


@dataclass(frozen=True)
class Penalty(Regulariser):
    """A penalty on the discriminator's gradient.

    Args:
        weight: of the penalty.
        every: compute it in every n-th step of the discriminator only, n times as strong ("lazily", Karras et al.
            2020, appendix B): it costs more than the rest of the step.

    Raises:
        ValueError: if the weight is negative, or `every` below 1.
    """

    weight: float
    every: int = 1

    def __post_init__(self) -> None:
        if self.weight < 0 or self.every < 1:
            raise ValueError(
                f"{type(self).__name__}(weight={self.weight}, every={self.every}): the weight must not be negative,"
                " and `every` is 1 or more steps."
            )

    def is_due(self, step: int) -> bool:
        """In the steps n − 1, 2n − 1, ..."""
        return (step + 1) % self.every == 0


@dataclass(frozen=True)
class R1(Penalty):
    """γ/2 ‖∇D(x)‖² at real data (Mescheder, Geiger & Nowozin 2018); γ is the weight."""

    weight: float = 1.0

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """γ/2 ‖∇D(x)‖²."""
        return 0.5 * self.weight * self.every * squared_gradient_norm(critic, real)


@dataclass(frozen=True)
class R2(Penalty):
    """γ/2 ‖∇D(G(z))‖² at generated data (Mescheder, Geiger & Nowozin 2018); γ is the weight."""

    weight: float = 1.0

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """γ/2 ‖∇D(G(z))‖²."""
        return 0.5 * self.weight * self.every * squared_gradient_norm(critic, fake)


@dataclass(frozen=True)
class GradientPenalty(Penalty):
    """λ (‖∇D(x̂)‖ − 1)² at x̂ = ε x + (1 − ε) G(z), ε uniform for each pair (Gulrajani et al. 2017, eq. 3)."""

    weight: float = 10.0

    @property
    def name(self) -> str:
        """Under which the penalty is logged."""
        return "gradient_penalty"

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """λ (‖∇D(x̂)‖ − 1)²."""
        mix = uniform((len(real), *[1] * (real.ndim - 1)), like=real)
        norm = (squared_gradient_norm(critic, torch.lerp(fake, real, mix)) + 1e-12).sqrt()  # √ has no slope at 0
        return self.weight * self.every * (norm - 1).square()


@dataclass(frozen=True)
class SpectralNorm(Regulariser):
    """Divides every weight matrix of the discriminator by its largest singular value (Miyato et al. 2018).

    Each linear map is then 1-Lipschitz (a convolution up to a factor: its kernel is taken as a matrix).
    """

    def constrain(self, discriminator: nn.Module) -> None:
        """Parametrises the weights of all linear and convolutional layers."""
        for layer in discriminator.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                parametrize.register_parametrization(layer, "weight", UnitSpectralNorm(layer.weight))


class UnitSpectralNorm(nn.Module):
    """W / σ(W), with the largest singular value by power iteration: a round for each use of the network in training.

    Args:
        weight: the one to be parametrised, (out, ...), flattened to a matrix from dimension 1 on.
    """

    left: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        left = torch.randn(len(weight), dtype=weight.dtype, device=weight.device)
        self.register_buffer("left", F.normalize(left, dim=0))
        with torch.no_grad():
            for _ in range(20):
                self.left.copy_(self._iterated(weight.flatten(1))[0])

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with a largest singular value of 1."""
        # a weight without content (on the device "meta") has no autocast either
        with torch.autocast("cpu" if weight.is_meta else weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            with torch.no_grad():
                left, right = self._iterated(matrix)
                if self.training:
                    self.left.copy_(left)
            return weight / (left @ matrix @ right)

    def _iterated(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """The left and right singular vectors after another round."""
        right = F.normalize(matrix.T @ self.left, dim=0)
        return F.normalize(matrix @ right, dim=0), right


@dataclass(frozen=True)
class Packing(Regulariser):
    """The discriminator judges `size` data together, all real or all generated (PacGAN, Lin et al. 2018).

    A generator that drops modes gives packs that resemble each other, which a pack betrays and a datum does not.
    Packs are laid out along the batch with overlap (datum i goes with i + 1, …), so that there are as many as data.

    Args:
        size: how many data.

    Raises:
        ValueError: if that is less than 2.
    """

    size: int = 2

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"Packing(size={self.size}): a pack holds at least 2 data.")


def packed(x: Tensor, size: int) -> Tensor:
    """(B, C, ...) to (B, size × C, ...): each datum followed by its neighbours in the batch."""
    return x if size == 1 else torch.cat([x.roll(-i, 0) for i in range(size)], 1)
