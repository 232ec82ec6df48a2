"""The three families: the same model, with what each of their papers chose."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from genzoo.zoo.diffusion.base import Diffusion
from genzoo.zoo.diffusion.denoising import Choices
from genzoo.zoo.diffusion.likelihood import ReverseChain
from genzoo.zoo.diffusion.schedules import RATIOS, LinearBetas, OptimalTransport, VarianceExploding
from genzoo.zoo.diffusion.solvers import DPMSolver, Heun, Variance
from genzoo.zoo.diffusion.variances import FittedVariances
from genzoo.zoo.diffusion.weighting import Simple
from genzoo.zoo.interface import LogProbKind
from genzoo.zoo.likelihoods import GaussianOutput, full_precision
from genzoo.zoo.randomness import Generator


class DDPM(FittedVariances):
    """The denoising diffusion probabilistic model (Ho, Jain & Abbeel 2020): a latent-variable model of T steps.

    The network predicts the noise, each error of which counts the same. `log_prob` is the lower bound of the whole
    chain, with the discretised normal distribution of the paper at its end; it looks at `num_particles` of the
    divergences, drawn without bias. Samples come from DPM-Solver++ by default; the paper's own way is
    `sample(n, solver=Ancestral(), steps=1000)`.

    The bound is tightest with reverse variances that follow from how wrong the network is at each step (Bao et al.
    2022), which `fit_variances` measures on training data. A Lightning run does so by itself.

    Args:
        shape: of one datum.
        levels: how many values each dimension can take; None for continuous data.
        variance: of the reverse chain whose bound is `log_prob`: "optimal", as fitted, and "large" until then; or
            "small" or "large", the two of the paper. Solvers have their own.
        arguments: as in `Denoising`.

    Raises:
        ValueError: as `Denoising`, and on another variance.
    """

    log_prob_kind: LogProbKind = "lower_bound"
    defaults = Choices(LinearBetas(), "epsilon", Simple(), DPMSolver(), 20, "uniform")
    dequantises = False

    #: how many steps the chain of the bound has, where the schedule is continuous
    chain_steps = 1000
    anomaly_particles = 16

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        variance: Variance | Literal["optimal"] = "optimal",
        **arguments: Any,
    ) -> None:
        super().__init__(shape, levels, **arguments)
        self.choose_variance(variance, len(self.chain_times()) - 1)

    # ---- likelihood

    @property
    def log_prob_protocol(self) -> str:
        """How `log_prob` is found, as a part of a sentence."""
        variances = f"{self.variance!r} variances"
        if self.variance == "optimal":
            fitted = bool(self.log_errors.any())
            variances = f"variances {'fitted to training data' if fitted else 'not fitted yet'}"
        return f"reverse chain of {len(self.log_errors)} steps, one looked at for each particle, {variances}"

    def log_prob_given(
        self, x: Tensor, labels: Tensor | None, num_particles: int, generator: Generator | None
    ) -> Tensor:
        """(B,) float64, an unbiased estimate of the bound."""
        chain, y, denoiser = self.chain(), self.to_model(x), self.denoiser(labels, clip=True)
        decoder = self.decoder(chain.last_look(denoiser, y, generator), chain.last_std)
        divergences = chain.divergences(denoiser, y, num_particles, generator)
        reconstruction = decoder.log_prob(self.standardised(full_precision(x))).double() - self.log_volume
        return reconstruction - chain.prior(y) - divergences

    about_log_prob_given = log_prob_given  # one look at a chain is as rough as any

    def chain(self, variance: Variance | None = None) -> ReverseChain:
        """The chain whose bound is `log_prob`, with the variances that it has now, or with given ones."""
        fitted = self.log_errors.double().exp() if self.variance == "optimal" else self.variance
        return ReverseChain(self.schedule, self.chain_times(), variance or fitted)

    def chain_times(self) -> Tensor:
        """The steps of that chain: all that the schedule has, from where the prediction says something of the datum
        down to where levels show.

        With noise of less than half a bin, the levels of discrete data can be read off. To learn that staircase would
        be a waste of the network, and the decoder at the chain's end knows it already: so its last step begins there.
        """
        times = self.schedule.times(getattr(self.schedule, "steps", self.chain_steps))
        if self.says_nothing_at(times[0]):
            times = times[self.schedule(times).log_snr >= -2 * math.log(RATIOS[0])]
        if self.levels is None:
            return times
        half_bin = 1 / (self.levels - 1) / self.data_scale
        noisy = self.schedule(times).log_snr < -2 * math.log(0.75 * half_bin)
        return times[noisy | (times == 0)]

    def decoder(self, mean: Tensor, std: float | Tensor) -> GaussianOutput:
        """p(x | x_t1), the chain's last step, from its mean and standard deviation as the model sees data.

        Of points x is here the standardised one.
        """
        location = mean * self.data_scale
        scale = torch.as_tensor(std * self.data_scale).to(location).expand_as(location)
        if self.levels is not None:  # from [−1, 1] to [0, 1]
            location, scale = (location + 1) / 2, scale / 2
        return GaussianOutput(location, scale, self.levels)

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """The errors, and from one divergence for each datum "nll", or "conditional_nll", −log p(x | y)."""
        quantities = super().evaluation(x, labels, generator)
        name, given = ("nll", None) if self.num_classes is None else ("conditional_nll", labels)
        value = -self.log_prob_given(x, given, 1, generator)
        return quantities | {name: value.to(quantities["loss"])}


class ScoreModel(Diffusion):
    """A score model of a variance-exploding diffusion (Song & Ermon 2019; Song et al. 2021; Karras et al. 2022).

    Denoising score matching: a network that removes noise knows ∇ ln p_t(x), the score of the noisy data (Vincent
    2011). It predicts v, which with α = 1 is the preconditioned network of Karras et al. (their F = −v, σ_data = 1).
    `log_prob` is the density of the probability flow.

    The constructor's arguments are those of `Denoising`.
    """

    defaults = Choices(VarianceExploding(), "v", Simple(), DPMSolver(), 20, "karras")

    @torch.no_grad()
    def score(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """∇_x ln p_t(x) = (α D(x, t) − x)/σ² (Tweedie's formula), for noisy data x in the data's own range.

        Args:
            x: (B, *shape): images as 2 x − 1 would be corrupted, points as standardised ones would be, in their own
                units.
            t: a time, float64, in (0, 1]; one for all, or (B,).
            labels: (B,) or None.

        Raises:
            TypeError: if x, t or the labels are no tensors of the right kind of number.
            ValueError: for t = 0, where no noise has made a density of the data; for x or labels not the model's.
        """
        x = full_precision(self.check(x, in_range=False))
        if not isinstance(t, Tensor) or not t.is_floating_point():
            raise TypeError(
                f"t is a time as a tensor of floats, but was given {getattr(t, 'dtype', type(t).__name__)}."
            )
        if t.shape not in ((), (len(x),)) or not bool(((t > 0) & (t <= 1)).all()):
            raise ValueError(f"t={t.tolist()}: the score is that of noisy data; give a time above 0, up to 1.")
        labels = None if labels is None else self.checked_labels(labels, len(x))
        t = t.to(x.device) if t.ndim else t
        noise = self.schedule(t).like(x)
        y = self.standardised(x) / self.data_scale
        score = (noise.alpha * self.denoiser(labels)(y, t) - y) / noise.sigma.square()
        return score / (self.data_scale * self.units)


class FlowMatching(Diffusion):
    """Flow matching with straight conditional paths (Lipman et al. 2023; Liu et al. 2023; Albergo et al. 2023).

    The network predicts the velocity ε − x₀ at x_t = (1 − t) x₀ + t ε, and an ODE carries noise to data along the
    mean velocity. `log_prob` is the density of that flow.

    The constructor's arguments are those of `Denoising`.
    """

    defaults = Choices(OptimalTransport(), "velocity", Simple(), Heun(), 10, "uniform")
