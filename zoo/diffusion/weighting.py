"""How much each noise level counts in the training loss.

A weighting says what ‖x₀ − x̂₀‖² is multiplied by at each noise level, so that it means the same whatever the network
predicts. `Simple` alone is stated by the prediction: its error counts as it is.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from genzoo.zoo.diffusion.parameterisation import Prediction, error_factor
from genzoo.zoo.diffusion.schedules import Noise


class Weighting(ABC):
    """The weight w in the loss w(t) ‖x₀ − x̂₀‖²."""

    @abstractmethod
    def __call__(self, noise: Noise, prediction: Prediction) -> Tensor:
        """w at the noise level, of the shape of its times."""


@dataclass(frozen=True)
class Simple(Weighting):
    """Every error of the prediction counts the same: L_simple of Ho et al. 2020 (eq. 14) where it is ε."""

    def __call__(self, noise: Noise, prediction: Prediction) -> Tensor:  # noqa: D102
        return error_factor(prediction, noise)


@dataclass(frozen=True)
class SNR(Weighting):
    """w = SNR: the simple loss of ε, whatever is predicted."""

    def __call__(self, noise: Noise, prediction: Prediction) -> Tensor:  # noqa: D102
        return noise.snr


@dataclass(frozen=True)
class MinSNR(Weighting):
    """w = min(SNR, γ) (Hang et al. 2023): little noise counts no more than moderate noise.

    Args:
        gamma: γ.
    """

    gamma: float = 5.0

    def __call__(self, noise: Noise, prediction: Prediction) -> Tensor:  # noqa: D102
        return noise.snr.clamp_max(self.gamma)


@dataclass(frozen=True)
class P2(Weighting):
    """w = SNR / (k + SNR)^γ (Choi et al. 2022): the noise at which content is decided counts most.

    Args:
        k: keeps the weight finite where there is nothing but noise.
        gamma: γ; 0 is `SNR`.
    """

    k: float = 1.0
    gamma: float = 1.0

    def __call__(self, noise: Noise, prediction: Prediction) -> Tensor:  # noqa: D102
        return noise.snr / (self.k + noise.snr) ** self.gamma


@dataclass(frozen=True)
class LikelihoodWeighting(Weighting):
    """w = −½ dSNR/dt: the loss, averaged over t, is then the diffusion part of −ELBO (Kingma et al. 2021, eq. 14).

    That holds of a schedule in continuous time, and of a chain about: between its steps ln α is taken for straight.
    """

    def __call__(self, noise: Noise, prediction: Prediction) -> Tensor:  # noqa: D102
        return noise.snr * (noise.d_sigma / noise.sigma - noise.d_alpha / noise.alpha)
