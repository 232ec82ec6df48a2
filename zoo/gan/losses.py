"""The two players' losses, as functions of what the discriminator says.

D(x) is a real number, a logit where the loss reads it as one: the higher, the more real. Each loss is what its player
minimises, and each is given per datum. "Its optimum" is the best discriminator against a fixed generator, for data
from p and generated data from q.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F


class AdversarialLoss(ABC):
    """What the discriminator and the generator minimise."""

    #: whether the generator's loss also looks at real data
    relativistic: ClassVar[bool] = False

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """(B,), from D(x) of real and D(G(z)) of generated data, (B,) each."""

    @abstractmethod
    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """(B,), from D(G(z)) and, where the loss is relativistic, D(x), (B,) each."""


@dataclass(frozen=True)
class NonSaturating(AdversarialLoss):
    """−log σ(D(x)) − log(1 − σ(D(G(z)))) against −log σ(D(G(z))) (Goodfellow et al. 2014).

    Its optimum is D = log p/q, where the discriminator's mean loss is 2 log 2 − 2 JSD(p, q).
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """softplus(−D(x)) + softplus(D(G(z)))."""
        return F.softplus(-real) + F.softplus(fake)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """softplus(−D(G(z)))."""
        return F.softplus(-fake)


@dataclass(frozen=True)
class Hinge(AdversarialLoss):
    """max(0, 1 − D(x)) + max(0, 1 + D(G(z))) against −D(G(z)) (Lim & Ye 2017; Miyato et al. 2018).

    Its optimum is D = sign(p − q), where the discriminator's mean loss is 2 − 2 TV(p, q).
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 − D(x)) + max(0, 1 + D(G(z)))."""
        return F.relu(1 - real) + F.relu(1 + fake)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """−D(G(z))."""
        return -fake


@dataclass(frozen=True)
class LeastSquares(AdversarialLoss):
    """½ (D(x) − 1)² + ½ D(G(z))² against ½ (D(G(z)) − 1)² (Mao et al. 2017, eq. 9).

    Its optimum is D = p / (p + q), where the discriminator's mean loss is ½ Σ p q / (p + q).
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """½ (D(x) − 1)² + ½ D(G(z))²."""
        return 0.5 * (real - 1).square() + 0.5 * fake.square()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """½ (D(G(z)) − 1)²."""
        return 0.5 * (fake - 1).square()


@dataclass(frozen=True)
class Wasserstein(AdversarialLoss):
    """D(G(z)) − D(x) against −D(G(z)) (Arjovsky, Chintala & Bottou 2017).

    Over all 1-Lipschitz D its minimum is −W₁(p, q): it needs a penalty or a constraint that keeps D near them.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """D(G(z)) − D(x)."""
        return fake - real

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """−D(G(z))."""
        return -fake


@dataclass(frozen=True)
class Relativistic(AdversarialLoss):
    """softplus(D(G(z)) − D(x)) against softplus(D(x) − D(G(z))), in pairs (Jolicoeur-Martineau 2019).

    Each datum is judged beside a generated one, so that no generated mode may fall behind the data near it: its
    landscape has no bad local minima (Sun, Fang & Schwing 2020). With `R1` and `R2` it is the loss of
    R3GAN (Huang et al. 2024).
    """

    relativistic: ClassVar[bool] = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """softplus(D(G(z)) − D(x))."""
        return F.softplus(fake - real)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """softplus(D(x) − D(G(z)))."""
        assert real is not None  # `relativistic` says so
        return F.softplus(real - fake)
