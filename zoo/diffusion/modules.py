"""The three families: the same model, with what each of their papers chose."""

import math

import torch
from torch import Tensor

from genzoo.zoo.diffusion.base import Diffusion
from genzoo.zoo.diffusion.denoising import Choices
from genzoo.zoo.diffusion.likelihood import ReverseChain, corrupt
from genzoo.zoo.diffusion.schedules import LinearBetas, OptimalTransport, VarianceExploding
from genzoo.zoo.diffusion.solvers import DPMSolver, Heun
from genzoo.zoo.diffusion.weighting import Simple
from genzoo.zoo.interface import LogProbKind
from genzoo.zoo.likelihoods import GaussianOutput
from genzoo.zoo.randomness import Generator, normal


class DDPM(Diffusion):
    """The denoising diffusion probabilistic model (Ho, Jain & Abbeel 2020): a latent-variable model of T steps.

    The network predicts the noise, each error of which counts the same. `log_prob` is the lower bound of the whole
    chain, with the discretised normal distribution of the paper at its end; it looks at `num_particles` of the
    divergences, drawn without bias. Samples come from DPM-Solver++ by default; the paper's own way is
    `sample(n, solver=Ancestral(), steps=1000)`.

    The constructor's arguments are those of `Denoising`.
    """

    log_prob_kind: LogProbKind = "lower_bound"
    defaults = Choices(LinearBetas(), "epsilon", Simple(), DPMSolver(), 20, "uniform")
    dequantises = False

    #: how many steps the chain of the bound has, where the schedule is continuous
    chain_steps = 1000
    anomaly_particles = 16

    def log_prob_given(
        self, x: Tensor, labels: Tensor | None, num_particles: int, generator: Generator | None
    ) -> Tensor:
        """(B,) float64, an unbiased estimate of the bound."""
        chain = ReverseChain(self.schedule, self.chain_times(), "large")
        y, denoiser = self.to_model(x), self.denoiser(labels, clip=True)

        last = chain.times[-2:-1].to(x.device).expand(len(x))
        noise = normal(y.shape, like=y, generator=generator)
        mean = denoiser(corrupt(self.schedule(last), y, noise), last) * self.data_scale
        std = torch.full_like(mean, chain.last_std * self.data_scale)
        if self.levels is not None:  # from [−1, 1] to [0, 1]
            mean, std = (mean + 1) / 2, std / 2
        divergences = chain.divergences(denoiser, y, num_particles, generator)
        return GaussianOutput(mean, std, self.levels).log_prob(x).double() - chain.prior(y) - divergences

    def chain_times(self) -> Tensor:
        """The steps of the chain whose bound is `log_prob`: all that the schedule has, down to where levels show.

        With noise of less than half a bin, the levels of discrete data can be read off. To learn that staircase would
        be a waste of the network, and the decoder at the chain's end knows it already: so its last step begins there.
        """
        times = self.schedule.times(getattr(self.schedule, "steps", self.chain_steps))
        if self.levels is None:
            return times
        half_bin = 1 / (self.levels - 1) / self.data_scale
        noisy = self.schedule(times).log_snr < -2 * math.log(0.75 * half_bin)
        return times[noisy | (times == 0)]

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """The errors, and from one divergence for each datum "nll", or "conditional_nll", −log p(x | y)."""
        quantities = super().evaluation(x, labels, generator)
        name, given = ("nll", None) if self.num_classes is None else ("conditional_nll", labels)
        return quantities | {name: -self.log_prob_given(x, given, 1, generator).to(x.dtype)}


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
            x: (B, *shape): images as 2 x − 1 would be corrupted, points as they are.
            t: a time, float64, in (0, 1].
            labels: (B,) or None.
        """
        noise = self.schedule(t).like(x)
        y = x / self.data_scale
        return (noise.alpha * self.denoiser(labels)(y, t) - y) / noise.sigma.square() / self.data_scale


class FlowMatching(Diffusion):
    """Flow matching with straight conditional paths (Lipman et al. 2023; Liu et al. 2023; Albergo et al. 2023).

    The network predicts the velocity ε − x₀ at x_t = (1 − t) x₀ + t ε, and an ODE carries noise to data along the
    mean velocity. `log_prob` is the density of that flow.

    The constructor's arguments are those of `Denoising`.
    """

    defaults = Choices(OptimalTransport(), "velocity", Simple(), Heun(), 10, "uniform")
