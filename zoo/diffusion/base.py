"""What all models of this folder can do: everything follows from a network that denoises.

`DDPM`, `ScoreModel` and `FlowMatching` (in `modules.py`) differ in the schedule, in what the network predicts, in how
the errors are weighed, and in the solver that samples by default. Each of these can be exchanged, and the network is
told nothing but the ratio of noise and data, so the same weights can be read as any of the three.
"""

import math
from collections import deque
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from genzoo.zoo.checks import check_count
from genzoo.zoo.diffusion.denoising import Denoising, check_guidance
from genzoo.zoo.diffusion.flow import ProbabilityFlow
from genzoo.zoo.diffusion.likelihood import corrupt
from genzoo.zoo.diffusion.marginal import MarginalBoundMixin
from genzoo.zoo.diffusion.schedules import RATIOS, Spacing
from genzoo.zoo.diffusion.solvers import Solver, Stop, repaint, stops
from genzoo.zoo.interface import LogProbKind
from genzoo.zoo.mixins import CompletionMixin, check_ends, great_circle
from genzoo.zoo.precision import full_precision
from genzoo.zoo.randomness import Generator, PerDatum, normal


class Diffusion(MarginalBoundMixin, CompletionMixin, Denoising):
    """The base of the diffusion models, for images, series and points.

    Capabilities: `sample`, `sample_path`, `log_prob`, `anomaly_score`, `complete`, `invert`, `generate`,
    `interpolate`. The constructor's arguments are those of `Denoising`. What takes no labels is answered by the
    network of "no class" where the model is conditional; only `log_prob` marginalises.
    """

    log_prob_kind: LogProbKind = "estimate"

    #: steps of the probability flow for likelihoods and inversions, of four evaluations each
    flow_steps = 24
    #: what passes for no noise in a likelihood of data with levels, as a part of a bin: more blurs the bins' edges
    flow_stop = 1 / 32
    #: up to so many dimensions the divergence is computed exactly
    exact_divergence_dims = 4
    #: steps of a completion, and how often each is taken: of images
    completion_steps, completion_repeats = 20, 3
    #: the same of points and series, which take less time, and of which the spread is looked at
    forecast_steps, forecast_repeats = 50, 10
    #: ln SNR of the noise levels at which anomalies are looked for
    anomaly_levels = (4.0, 2.0, 0.0, -2.0)
    #: draws of the likelihood as a score
    anomaly_particles = 1

    # ---- sampling

    @property
    def network_evaluations(self) -> int:
        """Those of the solver; with guidance twice as many, as it asks the network of no class, too."""
        return self.solver.evaluations(self.steps) * (1 if self.guidance == 1 else 2)

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        *,
        labels: Tensor | None = None,
        generator: Generator | None = None,
        solver: Solver | None = None,
        steps: int | None = None,
        spacing: Spacing | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """From noise to data by a solver.

        Args:
            num_samples: how many.
            labels: (num_samples,) for a conditional model; None draws them from p(y).
            generator: of all noise.
            solver: None takes the model's.
            steps: None takes the model's.
            spacing: None takes the model's.
            guidance: of a conditional model; above 1, samples are more typical of their class, and less diverse. None
                takes the model's.

        Returns:
            (num_samples, *shape), in the data's range and on its grid.

        Raises:
            ValueError: on labels or guidance that do not fit the model, or steps that do not fit the schedule.
        """
        _, states = self._states(num_samples, labels, generator, solver, steps, spacing, guidance)
        return self._as_data(*deque(states, maxlen=1).pop())

    @torch.no_grad()
    def sample_path(
        self, num_samples: int, *, num_frames: int, labels: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """What `sample` goes through: x_t from the first noise to the datum, each divided by √(α² + σ²).

        Returns:
            (num_frames, num_samples, *shape), evenly spread over the steps; the last is `sample`'s.
        """
        check_count("num_frames", num_frames)
        count, states = self._states(num_samples, labels, generator)
        last = count - 1
        wanted = [last - round(last * i / max(1, num_frames - 1)) for i in reversed(range(num_frames))]
        frames = {i: self._as_data(*state) for i, state in enumerate(states) if i in wanted}
        return torch.stack([frames[i] for i in wanted])

    def _states(
        self,
        num_samples: int,
        labels: Tensor | None,
        generator: Generator | None,
        solver: Solver | None = None,
        steps: int | None = None,
        spacing: Spacing | None = None,
        guidance: float | None = None,
    ) -> tuple[int, Iterator[tuple[Tensor, Stop]]]:
        """How many states the solver goes through, and each of them where it stops, one after another."""
        guidance = self.guidance if guidance is None else guidance
        check_guidance(guidance, self)
        if solver is not None and not isinstance(solver, Solver):
            raise TypeError(f"solver={solver!r}: give a Solver, such as Heun(), or None for the model's own.")
        times = self.solver_times(steps, spacing)
        # not `self.device`, which knows nothing of a move of the module that this one is a part of
        device = next((p.device for p in self.parameters()), self.device)
        like = full_precision(torch.zeros((), dtype=self.network_dtype, device=device))
        labels = self.labels_to_sample(labels, num_samples, like, generator)
        x = normal((num_samples, *self.shape), like=like, generator=generator) * self.schedule.prior_std(times[0])
        denoiser = self.denoiser(labels, guidance=guidance, clip=True)
        path = (solver or self.solver).path(denoiser, self.schedule, x, times, generator)
        places = stops(self.schedule, times)
        return len(places), zip(chain([x], path), places, strict=True)

    def _as_data(self, x: Tensor, at: Stop) -> Tensor:
        """A state of the solver in the data's range, of their size."""
        return self.from_model(x / math.hypot(at.alpha, at.sigma))

    # ---- likelihood

    def log_prob_given(
        self, x: Tensor, labels: Tensor | None, num_particles: int, generator: Generator | None
    ) -> Tensor:
        """(B,) float64, the log-density of the probability flow, averaged over so many draws.

        A draw is a Hutchinson probe and, for data with levels, a place in each bin: E ln p(x + u) + ln |bin| is then
        a lower bound on the log-probability (Theis et al. 2016), estimated up to the error of the flow's steps. In a
        few dimensions the divergence is exact.
        """
        return self._density(self.flow(labels), x, num_particles, generator)

    def about_log_prob_given(self, x: Tensor, labels: Tensor, num_particles: int, generator: Generator) -> Tensor:
        """The same from the flow in half as many steps: enough to say which class is how likely."""
        flow = self.flow(labels)
        flow.steps = max(1, flow.steps // 2)
        return self._density(flow, x, num_particles, generator)

    def _density(self, flow: ProbabilityFlow, x: Tensor, num_particles: int, generator: Generator | None) -> Tensor:
        exact = self.num_dims <= self.exact_divergence_dims
        bins = 0.0 if self.levels is None else self.num_dims * math.log(2 / (self.levels - 1))
        if exact and self.levels is None:  # nothing is drawn
            num_particles = 1
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _ in range(num_particles):
            y = self.to_model(self.dequantised(x, generator))
            probe = None if exact else normal(y.shape, like=y, generator=generator).sign()
            total += flow.log_prob(y, probe)
        return total / num_particles + bins - self.num_dims * math.log(self.data_scale) - self.log_volume

    @property
    def log_prob_protocol(self) -> str:
        """How `log_prob` is found, as a part of a sentence."""
        most, least = self.flow_ratios()
        divergence = "exact divergence" if self.num_dims <= self.exact_divergence_dims else "Hutchinson's probes"
        range_ = f"σ/α = {most:.3g} to {least:.2g}"
        return f"probability flow from {range_} in {self.flow_steps} Runge-Kutta steps, {divergence}"

    def flow_ratios(self) -> tuple[float, float]:
        """The most and the least σ/α of the flow.

        Where there is most noise, the data are to be nothing, as far as the schedule goes. Where there is least, the
        noise is, whatever a sampler stops at: of data with levels, at most `flow_stop` of a bin.
        """
        most = float((-self.schedule(torch.ones((), dtype=torch.float64)).log_snr / 2).exp())
        bin_width = math.inf if self.levels is None else 2 / (self.levels - 1) / self.data_scale
        return min(most, RATIOS[0]), min(self.flow_stop * bin_width, RATIOS[1])

    def flow(self, labels: Tensor | None = None) -> ProbabilityFlow:
        """The map between noise and data as the model sees them.

        Raises:
            ValueError: if the schedule does not know so little noise.
        """
        ratios = self.flow_ratios()
        least = torch.tensor(-2 * math.log(ratios[1]), dtype=torch.float64)
        if not torch.isclose(self.schedule.at(least).log_snr, least):
            raise ValueError(
                f"A likelihood goes down to σ/α = {ratios[1]:.2g}, but {self.schedule} does not: define its method"
                " `at(log_snr)` for that little noise, too."
            )

        def denoiser(w: Tensor, u: float) -> Tensor:
            noise = self.schedule.at(torch.tensor(-2 * u, dtype=torch.float64))
            given = None if labels is None else labels.clone()  # they may come from inference mode
            return self.denoise(w * math.hypot(noise.alpha, noise.sigma), noise, given)

        return ProbabilityFlow(denoiser, ratios, self.flow_steps)

    # ---- the other capabilities

    @torch.no_grad()
    def invert(self, x: Tensor) -> Tensor:
        """The noise that the probability flow takes x to, (B, *shape).

        Of x on a grid it is of less than unit variance: x is the middle of what becomes it.
        """
        x = self.check(x)
        return self.flow().encode(self.to_model(x))

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """The datum that the probability flow takes the noise z from, (B, *shape): the inverse of `invert`."""
        z = self.check(z, in_range=False)
        return self.from_model(self.flow().decode(full_precision(z)))

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        """Generates the great circle between the noises of a and of b (Song, Meng & Ermon 2021, section 5.3).

        Args:
            a: (B, *shape), the beginnings.
            b: (B, *shape), the ends.
            steps: at least 2, both ends included.

        Returns:
            (steps, B, *shape); the ends are generate(invert(·)) of a and b.
        """
        check_ends(a, b, steps)
        start, end = self.invert(a), self.invert(b)
        path = [great_circle(start.flatten(1), end.flatten(1), i / (steps - 1)) for i in range(steps)]
        return torch.stack([self.generate(z.view_as(start)) for z in path])

    def fill_in(
        self,
        x: Tensor,
        known: Tensor,
        num_samples: int,
        generator: Generator | None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """By `repaint`: approximate, nearer to what is likely without the known part the fewer repeats there are."""
        steps, repeats = self.completion_steps, self.completion_repeats
        if self.modality in ("points", "series"):
            steps, repeats = self.forecast_steps, self.forecast_repeats
        given = None if labels is None else labels.repeat(num_samples)
        mask = known.expand(num_samples, *x.shape).flatten(0, 1)
        target = self.to_model(x).expand(num_samples, *x.shape).flatten(0, 1)
        times = self.solver_times(min(steps, getattr(self.schedule, "steps", steps)))  # of a chain
        y = normal(target.shape, like=target, generator=generator) * self.schedule.prior_std(times[0])
        y = repaint(self.denoiser(given, clip=True), self.schedule, y, times, target, mask, repeats, generator)
        return self.from_model(y).unflatten(0, (num_samples, len(x)))

    @torch.no_grad()
    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """How badly x is explained.

        Args:
            x: (B, *shape).
            scorer: "reconstruction" (the default): x is corrupted to several noise levels and denoised in one step;
                the squared errors, each relative to what is to be expected of data from N(0, I), are averaged
                (compare Graham et al. 2023); "nll": −log p(x).

        Returns:
            (B,), higher = odder.
        """
        x = self.check(x)
        generator = PerDatum(x)
        if scorer == "nll":
            return -self.log_prob(x, num_particles=self.anomaly_particles, generator=generator)
        if scorer not in (None, "reconstruction"):
            raise ValueError(f"scorer={scorer!r}: {type(self).__name__} knows 'reconstruction' and 'nll'.")
        y, score = self.to_model(x), torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for level in torch.tensor(self.anomaly_levels, dtype=torch.float64):
            noise = self.schedule.at(level)
            x_t = corrupt(noise, y, normal(y.shape, like=y, generator=generator))
            error = (self.denoise(x_t, noise, clip=True) - y).double().flatten(1).square().sum(1)
            score += error * (1 + noise.snr).to(error) / len(self.anomaly_levels)
        return score.to(y.dtype)
