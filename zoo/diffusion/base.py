"""What all models of this folder are: a network that denoises, and everything that follows from that.

`DDPM`, `ScoreModel` and `FlowMatching` (in `modules.py`) differ in the schedule, in what the network predicts, in how
the errors are weighed, and in the solver that samples by default. Each of these can be exchanged, and the network is
told nothing but the ratio of noise and data, so the same weights can be read as any of the three.
"""

import math
from collections.abc import Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from genzoo.zoo.diffusion.likelihood import corrupt, flow_log_prob
from genzoo.zoo.diffusion.parameterisation import PREDICTIONS, Prediction, error_factor, predicted, to_x0
from genzoo.zoo.diffusion.schedules import Noise, Schedule, Spacing
from genzoo.zoo.diffusion.solvers import Ancestral, Denoiser, Heun, Solver, levels, transition_std
from genzoo.zoo.diffusion.weighting import Weighting
from genzoo.zoo.interface import LogProbKind, ZooModule
from genzoo.zoo.likelihoods import to_grid
from genzoo.zoo.mixins import CompletionMixin, ConditionalMixin, LogProbMixin
from genzoo.zoo.networks.timed_mlp import TimedMLP
from genzoo.zoo.networks.unet import UNet
from genzoo.zoo.randomness import Generator, PerDatum, normal, uniform


class Diffusion(ConditionalMixin, LogProbMixin, CompletionMixin, ZooModule):
    """The base of the diffusion models, for images and points.

    Capabilities: `sample`, `sample_path`, `log_prob`, `anomaly_score`, `complete`, `invert`, `generate`,
    `interpolate`.

    Args:
        shape: of one datum.
        levels: how many values each dimension can take; None for continuous data.
        schedule: the corruption; None takes the family's.
        prediction: what the network says, see `parameterisation.Prediction`; None takes the family's.
        weighting: of the noise levels in the loss; None takes the family's.
        solver: that `sample` uses by default; None takes the family's.
        steps: of that solver; None takes the family's.
        spacing: of the steps, see `Schedule.times`; None takes the family's.
        width: of the default network: channels of a `UNet`, or hidden units of a `TimedMLP`.
        multipliers: channels of the levels of the U-Net in units of `width`.
        blocks: residual blocks, for the U-Net at each level.
        dropout: in the U-Net.
        network: a module of your own, (x, c_noise, labels) to the shape of x, where x has about unit variance,
            c_noise of (B,) is ¼ ln(σ/α), and labels are (B,) in [0, num_classes], the last for "no class", or None.
        data_scale: what data are divided by, so that they have about unit variance; images, which have been
            scaled to [−1, 1], do well with 1.
        num_classes: how many classes the labels name.
        conditional: whether to learn p(x | label).
        label_dropout: the share of labels that training hides, for classifier-free guidance.
        optimizer: as in `ZooModule`.
        lr_scheduler: as in `ZooModule`.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    log_prob_kind: LogProbKind = "estimate"

    #: what a family states: its answers where an argument is None
    defaults: tuple[Schedule, Prediction, Weighting, Solver, int, Spacing]
    #: whether data are spread evenly over the bins of their levels, so that they have a density
    dequantises = True

    #: steps of the ODE for likelihoods and inversions, by Heun's method
    ode_steps = 24
    #: up to so many dimensions the divergence is computed exactly
    exact_divergence_dims = 4
    #: steps of a completion, and how often each is taken
    completion_steps, completion_repeats = 20, 3
    #: ln SNR of the noise levels at which anomalies are looked for
    anomaly_levels = (4.0, 2.0, 0.0, -2.0)
    #: draws of the likelihood as a score
    anomaly_particles = 1

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        schedule: Schedule | None = None,
        prediction: Prediction | None = None,
        weighting: Weighting | None = None,
        solver: Solver | None = None,
        steps: int | None = None,
        spacing: Spacing | None = None,
        width: int | None = None,
        multipliers: Sequence[int] = (1, 2),
        blocks: int | None = None,
        dropout: float = 0.0,
        network: nn.Module | None = None,
        data_scale: float = 1.0,
        num_classes: int | None = None,
        conditional: bool = False,
        label_dropout: float = 0.1,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if self.modality not in ("image", "points"):
            raise ValueError(f"{type(self).__name__} is for images and points, but the data are {self.modality}.")
        if not data_scale > 0 or not 0 < label_dropout < 1:
            raise ValueError(
                f"data_scale={data_scale}, label_dropout={label_dropout}: the one must be above 0, the other"
                " between 0 and 1."
            )
        self.condition_on(num_classes, conditional)
        given = (schedule, prediction, weighting, solver, steps, spacing)
        chosen = (own if argument is None else argument for argument, own in zip(given, self.defaults, strict=True))
        self.schedule, self.prediction, self.weighting, self.solver, self.steps, self.spacing = chosen  # type: ignore
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction={self.prediction!r}: choose one of {', '.join(PREDICTIONS)}.")
        self.schedule.times(self.steps, self.spacing)  # refuses what cannot be
        self.data_scale, self.label_dropout = data_scale, label_dropout
        if network is None and self.modality == "image":
            network = UNet(
                self.shape,
                width=width or 32,
                multipliers=multipliers,
                blocks=blocks or 1,
                dropout=dropout,
                num_classes=self.num_classes,
            )
        elif network is None:
            network = TimedMLP(self.num_dims, width=width or 64, blocks=blocks or 3, num_classes=self.num_classes)
        self.network = network

    # ---- data as the model sees them

    def to_model(self, x: Tensor) -> Tensor:
        """Images from [0, 1] to [−1, 1]; then anything divided by `data_scale`."""
        return (x if self.levels is None else 2 * x - 1) / self.data_scale

    def from_model(self, y: Tensor) -> Tensor:
        """Back, and to the nearest level."""
        y = y * self.data_scale
        return y if self.levels is None else to_grid((y + 1) / 2, self.levels).to(y.dtype)

    def dequantised(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """x + u, u uniform over the bin of x's level, of which x is the middle."""
        if self.levels is None or not self.dequantises:
            return x
        return x + (uniform(x.shape, like=x, generator=generator) - 0.5) / (self.levels - 1)

    # ---- the network

    def predict(self, x: Tensor, noise: Noise, labels: Tensor | None) -> Tensor:
        """What the network says of x_t, (B, *shape).

        It sees x_t with about unit variance and c_noise = ¼ ln(σ/α) (Karras et al. 2022, eq. 7 and table 1).
        """
        like = noise.like(x)
        c_noise = (-noise.log_snr.clamp(-20, 20) / 8).to(x).expand(len(x))
        scaled = x * (like.alpha.square() + like.sigma.square()).rsqrt()
        p = self.network(scaled, c_noise, labels)
        if p.shape != x.shape:
            raise ValueError(
                f"The network must map {tuple(x.shape)} to the same shape, but gave {tuple(p.shape)}."
            )
        return p.to(x.dtype)

    def denoiser(self, labels: Tensor | None = None, *, guidance: float = 1.0, clip: bool = False) -> Denoiser:
        """D(x, t), the estimated datum, for x as the model sees it.

        Args:
            labels: (B,), or None for "no class".
            guidance: w in D(x, t | no class) + w (D(x, t | label) − D(x, t | no class)) (Ho & Salimans 2021); 1 is
                the conditional model itself. Both run in one batch.
            clip: whether to clip the estimate to the range of images.
        """

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            noise = self.schedule(t)
            if labels is None or guidance == 1.0:
                p = self.predict(x, noise, labels)
            else:
                twice = Noise(*(v.expand(len(x)).repeat(2) for v in noise))
                nothing = torch.full_like(labels, self.num_classes or 0)
                both = self.predict(x.repeat(2, *[1] * (x.ndim - 1)), twice, torch.cat([labels, nothing]))
                with_label, without = both.chunk(2)
                p = without + guidance * (with_label - without)
            x0 = to_x0(self.prediction, noise.like(x), x, p)
            return x0.clamp(-1 / self.data_scale, 1 / self.data_scale) if clip and self.levels else x0

        return denoise

    # ---- training

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """The weighted error at one time for each datum; the times of a batch are spread evenly (Kingma et al. 2021).

        Returns:
            "loss", summed over the datum: in nats if the weighting is `LikelihoodWeighting`; "mse", the error of the
            prediction for each dimension, without weight.
        """
        first = uniform((), like=x)
        u = (first + torch.arange(len(x), device=x.device) / len(x)) % 1
        given = self.checked_labels(labels, len(x)) if self.num_classes is not None else None
        if given is not None:
            hidden = uniform((len(x),), like=x) < self.label_dropout
            given = torch.where(hidden, self.num_classes, given)  # type: ignore[arg-type]
        return self.errors(x, given, u, None)

    def errors(self, x: Tensor, labels: Tensor | None, u: Tensor, generator: Generator | None) -> dict[str, Tensor]:
        """`objective`'s quantities at the times that belong to u, (B,) in [0, 1)."""
        x0 = self.to_model(self.dequantised(x, generator))
        noise = self.schedule(self.schedule.training_times(u))
        epsilon = normal(x0.shape, like=x0, generator=generator)
        x_t = corrupt(noise, x0, epsilon)
        target = predicted(self.prediction, noise.like(x0), x0, epsilon)
        error = (self.predict(x_t, noise, labels) - target).square().flatten(1)
        weight = self.weighting(noise, self.prediction) / error_factor(self.prediction, noise)
        return {"loss": weight.to(x.dtype) * error.sum(1), "mse": error.mean(1)}

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """The errors at one time for each datum."""
        given = None if self.num_classes is None else self.checked_labels(labels, len(x))
        return self.errors(x, given, uniform((len(x),), like=x, generator=generator), generator)

    # ---- sampling

    @property
    def network_evaluations(self) -> int:
        """Those of the solver."""
        return self.solver.evaluations(self.steps)

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
        guidance: float = 1.0,
    ) -> Tensor:
        """From noise to data by a solver.

        Args:
            num_samples: how many.
            labels: (num_samples,) for a conditional model; None draws them uniformly.
            generator: of all noise.
            solver: None takes the model's.
            steps: None takes the model's.
            spacing: None takes the model's.
            guidance: above 1, samples are more typical of their class, and less diverse.

        Returns:
            (num_samples, *shape), in the data's range and on its grid.

        Raises:
            ValueError: on labels that do not fit the model, or steps that do not fit the schedule.
        """
        return self._states(num_samples, labels, generator, solver, steps, spacing, guidance)[-1]

    @torch.no_grad()
    def sample_path(
        self, num_samples: int, *, num_frames: int, labels: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """What `sample` goes through: x_t from the first noise to the datum, each divided by √(α² + σ²).

        Returns:
            (num_frames, num_samples, *shape), evenly spread over the steps; the last is `sample`'s.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames}: give at least 1.")
        states = self._states(num_samples, labels, generator, None, None, None, 1.0)
        last = len(states) - 1
        return torch.stack([states[last - round(last * i / max(1, num_frames - 1))] for i in range(num_frames)][::-1])

    def _states(
        self,
        num_samples: int,
        labels: Tensor | None,
        generator: Generator | None,
        solver: Solver | None,
        steps: int | None,
        spacing: Spacing | None,
        guidance: float,
    ) -> list[Tensor]:
        """Every state of the solver, in the data's range."""
        like = next(self.parameters())
        labels = self.labels_to_sample(labels, num_samples, like, generator)
        times = self.schedule.times(self.steps if steps is None else steps, spacing or self.spacing)
        x = normal((num_samples, *self.shape), like=like, generator=generator) * self.schedule.prior_std
        denoiser = self.denoiser(labels, guidance=guidance, clip=True)
        path = (solver or self.solver).path(denoiser, self.schedule, x, times, generator)
        stops = levels(self.schedule, times)
        return [self.from_model(y / math.hypot(at.alpha, at.sigma)) for y, at in zip([x, *path], stops, strict=True)]

    # ---- likelihood

    @torch.no_grad()
    def log_prob(
        self,
        x: Tensor,
        *,
        labels: Tensor | None = None,
        num_particles: int = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """log p(x), by the method of the family (`log_prob_given`).

        Args:
            x: (B, *shape).
            labels: (B,) for a conditional model; None: log (1/C) Σ_y p(x | y) over its classes.
            num_particles: of the estimate.
            generator: `PerDatum(x)` makes the value depend on x alone.

        Returns:
            (B,), nats.
        """
        self.check(x)
        if num_particles < 1:
            raise ValueError(f"num_particles={num_particles}: an estimate takes at least one.")
        if self.num_classes is None or labels is not None:
            given = self.checked_labels(labels, len(x))
            return self.log_prob_given(x, given, num_particles, generator).to(x.dtype)
        classes = torch.arange(self.num_classes, device=x.device)[:, None].expand(-1, len(x))
        each = torch.stack([self.log_prob_given(x, y, num_particles, generator) for y in classes])
        return (each.logsumexp(0) - math.log(self.num_classes)).to(x.dtype)

    def log_prob_given(
        self, x: Tensor, labels: Tensor | None, num_particles: int, generator: Generator | None
    ) -> Tensor:
        """(B,) float64, the log-density of the probability flow, averaged over so many draws.

        A draw is a Hutchinson probe and, for data with levels, a place in each bin: then E ln p(x + u) + ln |bin| is a
        lower bound on the log-probability (Theis et al. 2016), estimated up to the error of the ODE's steps. In a few
        dimensions the divergence is exact.
        """
        times, exact = self.ode_times(), self.num_dims <= self.exact_divergence_dims
        bins = 0.0 if self.levels is None else self.num_dims * math.log(2 / (self.levels - 1))
        if exact and self.levels is None:  # nothing is drawn
            num_particles = 1
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _ in range(num_particles):
            y = self.to_model(self.dequantised(x, generator))
            probe = None if exact else normal(y.shape, like=y, generator=generator).sign()
            total += flow_log_prob(self.denoiser(labels), self.schedule, y, times, probe)
        return total / num_particles + bins - self.num_dims * math.log(self.data_scale)

    def ode_times(self) -> Tensor:
        """From data to noise: (ode_steps,), rising from almost 0 to 1."""
        return self.schedule.times(self.ode_steps, "karras")[:-1].flip(0)

    # ---- the other capabilities

    @torch.no_grad()
    def invert(self, x: Tensor) -> Tensor:
        """The noise that the probability flow takes x to, (B, *shape), of about unit variance."""
        self.check(x)
        times = self.ode_times()
        y = self.to_model(x) * float(self.schedule(times[0]).alpha)
        return Heun().solve(self.denoiser(), self.schedule, y, times) / self.schedule.prior_std

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """The datum that the probability flow takes the noise z from, (B, *shape): the inverse of `invert`."""
        times = self.schedule.times(self.ode_steps, "karras")
        return self.from_model(Heun().solve(self.denoiser(), self.schedule, z * self.schedule.prior_std, times))

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
        if steps < 2:
            raise ValueError(f"steps={steps}: an interpolation has at least its two ends.")
        start, end = self.invert(a), self.invert(b)
        u, v = (z.flatten(1) / z.flatten(1).norm(dim=1, keepdim=True) for z in (start, end))
        angle = ((u * v).sum(1).clamp(-1, 1).acos()).view(-1, *[1] * (a.ndim - 1)).clamp_min(1e-4)
        weights = torch.linspace(0, 1, steps).tolist()
        return torch.stack(
            [
                self.generate((((1 - w) * angle).sin() * start + (w * angle).sin() * end) / angle.sin())
                for w in weights
            ]
        )

    def fill_in(self, x: Tensor, known: Tensor, num_samples: int, generator: Generator | None) -> Tensor:
        """RePaint (Lugmayr et al. 2022, algorithm 1): ancestral steps in which what is known is put in, with noise.

        Each step is repeated after going back by one, so that the unknown comes to fit the known. Approximate.
        """
        mask = known.expand(num_samples, *x.shape).flatten(0, 1)
        target = self.to_model(x).expand(num_samples, *x.shape).flatten(0, 1)
        denoiser, ancestral = self.denoiser(clip=True), Ancestral()
        times = self.schedule.times(self.completion_steps, self.spacing)
        stops = levels(self.schedule, times)
        y = normal(target.shape, like=target, generator=generator) * self.schedule.prior_std
        for i, (now, then) in enumerate(zip(stops, stops[1:], strict=False)):
            repeats = self.completion_repeats if then.sigma > 0 else 1
            for repeat in range(repeats):
                if repeat > 0:
                    again = normal(y.shape, like=y, generator=generator)
                    y = now.alpha / then.alpha * y + transition_std(now, then) * again
                y = ancestral.solve(denoiser, self.schedule, y, times[i : i + 2], generator)
                noise = normal(y.shape, like=y, generator=generator)
                y = torch.where(mask, then.alpha * target + then.sigma * noise, y)
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
        self.check(x)
        generator = PerDatum(x)
        if scorer == "nll":
            return -self.log_prob(x, num_particles=self.anomaly_particles, generator=generator)
        if scorer not in (None, "reconstruction"):
            raise ValueError(f"scorer={scorer!r}: {type(self).__name__} knows 'reconstruction' and 'nll'.")
        y, score = self.to_model(x), torch.zeros(len(x), dtype=torch.float64, device=x.device)
        denoiser = self.denoiser(clip=True)
        for t in self.schedule.time(torch.tensor(self.anomaly_levels, dtype=torch.float64)):
            noise = self.schedule(t)
            x_t = corrupt(noise, y, normal(y.shape, like=y, generator=generator))
            error = (denoiser(x_t, t) - y).double().flatten(1).square().sum(1)
            score += error * (1 + noise.snr).to(error) / len(self.anomaly_levels)
        return score.to(x.dtype)
