"""A network that denoises: how it is built, what it is told, and what it is trained for."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from genzoo.zoo.checks import check_number
from genzoo.zoo.diffusion.likelihood import corrupt
from genzoo.zoo.diffusion.networks import FOR, OURS, Name, network_of
from genzoo.zoo.diffusion.parameterisation import PREDICTIONS, Prediction, error_factor, predicted, to_x0
from genzoo.zoo.diffusion.schedules import Noise, Schedule, Spacing
from genzoo.zoo.diffusion.solvers import Denoiser, Solver
from genzoo.zoo.diffusion.weighting import Weighting
from genzoo.zoo.mixins import ClassPrior, Conditional, ConditionalMixin, portions
from genzoo.zoo.modality import to_grid
from genzoo.zoo.module import ZooModule
from genzoo.zoo.muon import matrix_groups
from genzoo.zoo.networks.linear import is_exporting
from genzoo.zoo.parts import Part, example, label_of
from genzoo.zoo.precision import full_precision
from genzoo.zoo.randomness import Generator, normal, uniform

CACHED = 2**18  # numbers of the data at a time: of more, a network makes what caches do not hold, and gigabytes of it


def check_guidance(guidance: float, model: ConditionalMixin | None = None) -> None:
    """Raises ValueError unless it is a scale that samples can be drawn with, by this model if one is given."""
    check_number("guidance", guidance, "a finite number; 1 is the model as it was trained")
    if model is not None and guidance != 1 and model.num_classes is None:
        raise ValueError(
            f"guidance={guidance}: this {type(model).__name__} is unconditional: there is no class to guide to."
        )


class Choices(NamedTuple):
    """What a family states."""

    schedule: Schedule
    prediction: Prediction
    weighting: Weighting
    solver: Solver
    steps: int
    spacing: Spacing


class Denoising(ConditionalMixin, ZooModule):
    """A network that is trained to denoise images, series or points. What it is good for is in `Diffusion`.

    Args:
        shape, levels, optimizer, lr_scheduler: as in `ZooModule`.
        schedule: the corruption; None takes the family's.
        prediction: what the network says, see `parameterisation.Prediction`; None takes the family's.
        weighting: of the noise levels in the loss; None takes the family's.
        solver: that `sample` uses by default; None takes the family's.
        steps: of that solver; None takes the family's.
        spacing: of the steps, see `Schedule.times`; None takes the family's.
        network: "unet", a `UNet` (images); "dit", a transformer, `DiT` (images, series); "mlp", a `TimedMLP`
            (points); None takes the first that is for the data. Or a module of your own, (x, c_noise, labels) to the
            shape of x, where x has about unit variance, c_noise of (B,) is ¼ ln(σ/α), in float32 at least, and
            labels are (B,) in [0, num_classes], the last for "no class", or None.
        width: of a network of ours: channels of the U-Net, numbers at each position of the transformer, or hidden
            units of the MLP; None takes what suits the data, or 64.
        multipliers: channels of the levels of the U-Net in units of `width`; None: what suits the images' size, and
            likewise the width and attention, unless they are given.
        blocks: residual blocks, for the U-Net at each level; None takes 1, or 3.
        attention: at the lowest level of the U-Net; None: as in `UNet`.
        dropout: in the U-Net or the transformer.
        patch: the side of the squares that the U-Net folds into channels, or that are the transformer's positions;
            None takes what suits the images.
        depth: blocks of the transformer; None takes what suits the data.
        heads: of attention in each block of the transformer; None takes one for 64 numbers.
        checkpointing: whether the transformer's activations are computed again for the gradient instead of kept: a
            third more work, in a fraction of the memory.
        data_scale: what data, points standardised before, are divided by, so that they have about unit variance;
            images, which have been scaled to [−1, 1], do well with 1. Series are taken as they are.
        num_classes: how many classes the labels name.
        conditional: whether to learn p(x | label); "auto": if there are several classes.
        class_prior: p(y) where no label is given: the classes' shares in the "training" data, or "uniform" over
            those that they have.
        label_dropout: the share of labels that training hides, for classifier-free guidance.
        guidance: of samples by default, see `denoise`; a model without classes has none.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    #: the family's answers where an argument is None
    defaults: Choices
    #: whether data are spread evenly over the bins of their levels, so that they have a density
    dequantises = True

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
        multipliers: Sequence[int] | None = None,
        blocks: int | None = None,
        attention: bool | None = None,
        dropout: float = 0.0,
        patch: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        checkpointing: bool = False,
        network: Name | nn.Module | None = None,
        data_scale: float = 1.0,
        num_classes: int | None = None,
        conditional: Conditional = False,
        class_prior: ClassPrior = "training",
        label_dropout: float = 0.1,
        guidance: float = 1.0,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if self.modality not in FOR:
            raise ValueError(
                f"{type(self).__name__} is for images, points and series (C, T) of levels=None, but the data are"
                f" {self.modality}, shape={self.shape}, levels={levels}."
            )
        if not data_scale > 0 or not 0 < label_dropout < 1:
            raise ValueError(
                f"data_scale={data_scale}, label_dropout={label_dropout}: the one must be above 0, the other"
                " between 0 and 1."
            )
        self.condition_on(num_classes, conditional, class_prior)
        self.schedule = schedule or self.defaults.schedule
        self.prediction = prediction or self.defaults.prediction
        self.weighting = weighting or self.defaults.weighting
        self.solver = solver or self.defaults.solver
        self.steps = self.defaults.steps if steps is None else steps
        self.spacing = spacing or self.defaults.spacing
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction={self.prediction!r}: choose one of {', '.join(PREDICTIONS)}.")
        self.solver_times()  # refuses what cannot be
        self.data_scale, self.label_dropout = data_scale, label_dropout
        check_guidance(guidance)
        self.guidance = guidance if self.num_classes is not None else 1.0
        sizes = {
            "patch": patch,
            "width": width,
            "multipliers": multipliers,
            "blocks": blocks,
            "attention": attention,
            "depth": depth,
            "heads": heads,
            "dropout": dropout or None,
            "checkpointing": checkpointing or None,
        }
        self.network = network_of(network, self.shape, self.modality, self.num_classes, sizes)

    def solver_times(self, steps: int | None = None, spacing: Spacing | None = None) -> Tensor:
        """The times at which a solver stops, `Schedule.times`; None takes the model's own steps and spacing.

        Raises:
            ValueError: if the schedule has no such steps, or the first is where the prediction says nothing of data.
        """
        times = self.schedule.times(
            self.steps if steps is None else steps, self.spacing if spacing is None else spacing
        )
        if self.says_nothing_at(times[0]):
            raise ValueError(
                f"prediction={self.prediction!r}: at the first step of {self.schedule} nothing is left of the datum"
                " (α = 0), and to name the noise then says nothing of it. Choose 'x0', 'v' or 'velocity', or"
                " spacing='karras', which begins later."
            )
        return times

    def says_nothing_at(self, t: Tensor) -> bool:
        """Whether nothing of the datum is left at a time (α = 0), where the prediction is one of the noise."""
        return self.prediction in ("epsilon", "score") and not self.schedule(t).alpha > 0

    # ---- data as the model sees them

    def to_model(self, x: Tensor) -> Tensor:
        """Images from [0, 1] to [−1, 1], points standardised; then anything divided by `data_scale`.

        In float32 at least.
        """
        x = full_precision(x)
        return (self.standardised(x) if self.levels is None else 2 * x - 1) / self.data_scale

    def from_model(self, y: Tensor) -> Tensor:
        """Back, and to the nearest level."""
        y = y * self.data_scale
        return self.in_own_units(y) if self.levels is None else to_grid((y + 1) / 2, self.levels)

    def dequantised(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """x + u, u uniform over the bin of x's level, of which x is the middle. In float32 at least."""
        x = full_precision(x)
        if self.levels is None or not self.dequantises:
            return x
        return x + (uniform(x.shape, like=x, generator=generator) - 0.5) / (self.levels - 1)

    # ---- the network

    @property
    def network_dtype(self) -> torch.dtype:
        """What the network computes in. Everything around it is in float32 at least."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def predict(self, x: Tensor, noise: Noise, labels: Tensor | None) -> Tensor:
        """What the network says of x_t, (B, *shape).

        It sees x_t with about unit variance and c_noise = ¼ ln(σ/α) (Karras et al. 2022, eq. 7 and table 1), the
        latter in float32 at least: it is a measurement, and a network forms sines of multiples of it.
        """
        like, own = noise.like(x), self.network_dtype
        c_noise = -noise.log_snr.clamp(-20, 20) / 8
        if c_noise.device != x.device:  # one number for all, which is filled in and not moved: that waits for nothing
            c_noise = x.new_full((), float(c_noise))
        c_noise = c_noise.to(x).expand(x.shape[0])
        scaled = x * (like.alpha.square() + like.sigma.square()).rsqrt()
        p = self._few_at_once(scaled.to(own), c_noise, labels)
        if p.shape != x.shape:
            raise ValueError(f"The network must map {tuple(x.shape)} to the same shape, but gave {tuple(p.shape)}.")
        return p.to(x.dtype)

    def _few_at_once(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """The network's output; of few data at a time where no gradient is asked for, on a CPU."""
        if x.device.type != "cpu" or torch.is_grad_enabled() or is_exporting() or x.numel() <= CACHED:
            return self.network(x, c_noise, labels)
        count = min(len(x), -(-x.numel() // CACHED))
        return torch.cat([self.network(*part) for part in portions(count, x, c_noise, labels)])

    def denoise(
        self, x: Tensor, noise: Noise, labels: Tensor | None = None, *, guidance: float = 1.0, clip: bool = False
    ) -> Tensor:
        """The estimated datum, (B, *shape), for x = x_t as the model sees it.

        Args:
            x: (B, *shape).
            noise: α and σ of x, one for all or of (B,), with σ above 0.
            labels: (B,), or None for "no class".
            guidance: w in D(x, t | no class) + w (D(x, t | label) − D(x, t | no class)) (Ho & Salimans 2021); 1 is
                the conditional model itself. Both run in one batch.
            clip: whether to clip the estimate to the range of images.
        """
        if labels is None or guidance == 1.0:
            p = self.predict(x, noise, labels)
        else:
            twice = Noise(*(v if v.ndim == 0 else v.expand(len(x)).repeat(2) for v in noise))
            nothing = torch.full_like(labels, self.num_classes or 0)
            both = self.predict(x.repeat(2, *[1] * (x.ndim - 1)), twice, torch.cat([labels, nothing]))
            with_label, without = both.chunk(2)
            p = without + guidance * (with_label - without)
        x0 = to_x0(self.prediction, noise.like(x), x, p)
        return x0.clamp(-1 / self.data_scale, 1 / self.data_scale) if clip and self.levels else x0

    def denoiser(self, labels: Tensor | None = None, *, guidance: float = 1.0, clip: bool = False) -> Denoiser:
        """D(x, t), for a time t above 0: `denoise` on the model's own schedule."""
        return lambda x, t: self.denoise(x, self.schedule(t), labels, guidance=guidance, clip=clip)

    def parts(self) -> dict[str, Part]:
        """The denoiser D, from x_t, α and σ (and their derivatives, to make data of a velocity) to the datum.

        x_t and the datum are as the model sees data. Beside it stand the noise levels at which the model's own solver
        stops, the noisiest first.
        """
        names = Noise._fields if self.prediction == "velocity" else ("alpha", "sigma")
        stops = self.schedule(self.solver_times())
        usual = [self.steps // 2, -2]  # where an estimate is no small difference of large numbers
        levels = {name: getattr(stops, name)[usual].float() for name in names}

        def denoised(x: Tensor, alpha: Tensor, sigma: Tensor, *rest: Tensor) -> Tensor:
            unused = (torch.zeros_like(alpha),) * (4 - len(names))
            changes, label = rest[: len(names) - 2], rest[len(names) - 2 :]
            return self.denoise(x, Noise(alpha, sigma, *changes, *unused), *label)

        facts: dict[str, Any] = {"data_scale": self.data_scale, **self.units_stated}
        for name in names:  # a derivative where there is no noise may be infinite, and nobody goes on from there
            facts[name] = [value if math.isfinite(value) else None for value in getattr(stops, name).tolist()]
        inputs = {"x_t": example(*self.shape), **levels, **label_of(self)}
        return {"denoiser": Part(self, denoised, inputs, ("x_0",), facts)}

    # ---- training

    def parameter_groups(self) -> list[Any]:
        """The matrices of our networks' hidden layers apart, for `Muon`; of a network of your own all alike."""
        if isinstance(self.network, OURS):
            return matrix_groups(self, self.network.hidden)
        return super().parameter_groups()

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """The weighted error at one time for each datum; the times of a batch are spread evenly (Kingma et al. 2021).

        Returns:
            "loss", summed over the datum: in nats if the weighting is `LikelihoodWeighting`; "mse", the error of the
            prediction for each dimension, without weight.
        """
        x = full_precision(x)
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
        return {"loss": weight.to(error) * error.sum(1), "mse": error.mean(1)}

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """The errors at one time for each datum."""
        x = full_precision(x)
        given = None if self.num_classes is None else self.checked_labels(labels, len(x))
        return self.errors(x, given, uniform((len(x),), like=x, generator=generator), generator)
