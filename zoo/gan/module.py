"""The generative adversarial network (Goodfellow et al. 2014).

A generator G maps latents z ~ N(0, I) to data; a discriminator D learns to tell them from real data, and G learns to
be taken for real. Neither has a likelihood: a GAN can only be sampled, and judged by its samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from genzoo.zoo.checks import check_networks
from genzoo.zoo.gan.augmentation import Augment, augmented, check_kinds
from genzoo.zoo.gan.inversion import InversionMixin
from genzoo.zoo.gan.losses import AdversarialLoss, Relativistic
from genzoo.zoo.gan.regularisers import R1, R2, Regulariser, packed
from genzoo.zoo.learning_rates import schedule_for
from genzoo.zoo.memory import within_memory
from genzoo.zoo.mixins import ClassPrior, Conditional, ConditionalMixin, portions
from genzoo.zoo.modality import to_grid
from genzoo.zoo.module import ZooModule
from genzoo.zoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from genzoo.zoo.networks.mlp import MLP
from genzoo.zoo.networks.r3gan import R3GANDiscriminator, R3GANGenerator
from genzoo.zoo.networks.resnet import ResNetDecoder, ResNetEncoder
from genzoo.zoo.optimizers import fused
from genzoo.zoo.parts import Part, example, label_of
from genzoo.zoo.precision import to_network
from genzoo.zoo.randomness import Generator, normal

#: for images: what there is for want of a choice, now and in files of earlier versions
USUAL: dict[str | None, Literal["dcgan", "r3gan", "resnet"]] = {"usual": "dcgan", "auto": "r3gan", None: "resnet"}

Losses = Callable[[Tensor, Tensor | None], dict[str, Tensor]]  # from data and labels to (B,) by name


class GAN(InversionMixin, ConditionalMixin, ZooModule):
    """A generative adversarial network.

    Capabilities: `sample`; by inversion also `invert`, `interpolate`, `complete`, `anomaly_score`. No `log_prob`.

    A batch is one iteration, whose data are shared out over the discriminator's steps and which ends with one step
    of the generator, on the last share. What the generator makes of that one's latents both players are shown, the
    discriminator before its step and after it (as in PyTorch's DCGAN example): it is made once, not twice. A batch
    that has too few data for that (one for each step, or a pack), as an epoch's last may have, is shown more than
    once: every iteration makes every step. So the Trainer's steps, schedules, checkpoints and validation intervals
    all count iterations, and `trainer.gradient_clip_val` and `accumulate_grad_batches`, which Lightning refuses where
    a module has several optimisers, are `gradient_clip_norm` and `micro_batches` here.

    Args:
        shape: of one datum: an image, a waveform or a point.
        levels: how many values each dimension can take; None for continuous data.
        latent_dim: d, the number of latent variables.
        network: "mlp" (gated residual perceptrons, any data), "dcgan", "r3gan" or "resnet" (convolutions, images);
            "usual" takes "dcgan" for images, which in the same minutes comes further than "r3gan", and "mlp" for the
            rest. Files state what was usual then: None means "resnet" for images, "auto" means "r3gan".
        width: hidden units of the perceptrons, or channels of the convolutions (see there); None takes 128, for
            "dcgan" and "resnet" 32.
        depth: residual blocks, for convolutions at each resolution ("dcgan" has none); None takes 2 or 1.
        generator: a module of your own, (B, d) to (B, *shape) up to reshaping; tanh follows unless the data are
            continuous (nor does it after "r3gan", whose samples are cut off at the ends of the data's range). If
            conditional it is given d + num_classes numbers, z and a one-hot class.
        discriminator: a module of your own, (B, *shape) in [−1, 1] (if continuous: as they are, points
            standardised) to (B, 1), or to (B, num_classes), one output for each class, if conditional.
        loss: what the two minimise; None takes `Relativistic()`.
        regularisers: of the discriminator; None takes `R1(0.1, every=16)` and `R2(0.1, every=16)`, which together
            with the relativistic loss converge (Huang et al. 2024), as rarely as in StyleGAN2 (Karras et al. 2020).
        augment: how real and generated images are changed at random before the discriminator is shown them in
            training: some of "color", "translation", "cutout" (differentiable augmentation, Zhao et al. 2020). It
            helps where there are a few thousand images.
        discriminator_steps: of the discriminator in each iteration.
        micro_batches: how many parts the data of a step pass through the networks in, their gradients adding up; no
            more than there are data (packs) in it. With several of them the two players draw latents of their own.
        gradient_clip_norm: largest norm of a network's gradient; None: no clipping.
        num_classes: C, as the datamodule states it.
        conditional: train G(z, y) and D(x, y) on the data's labels; "auto": if there are several classes.
        class_prior: p(y) where no label is given: the classes' shares in the "training" data, or "uniform" over
            those that they have.
        generator_optimizer: builds the generator's optimiser; None takes Adam with a rate of 2e-4, β = (0, 0.99).
        discriminator_optimizer: builds the discriminator's; None takes the same.
        lr_scheduler: builds the schedule of each optimiser; it advances with every iteration.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    iteration: Tensor

    gathered = (*ZooModule.gathered, "_latest")

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        latent_dim: int = 32,
        network: Literal["usual", "mlp", "dcgan", "r3gan", "resnet", "auto"] | None = "usual",
        width: int | None = None,
        depth: int | None = None,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        loss: AdversarialLoss | None = None,
        regularisers: Sequence[Regulariser] | None = None,
        augment: Sequence[Augment] = (),
        discriminator_steps: int = 1,
        micro_batches: int = 1,
        gradient_clip_norm: float | None = None,
        num_classes: int | None = None,
        conditional: Conditional = False,
        class_prior: ClassPrior = "training",
        generator_optimizer: OptimizerCallable | None = None,
        discriminator_optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, lr_scheduler=lr_scheduler)
        self.automatic_optimization = False
        if self.modality == "tokens":
            raise ValueError(f"shape={self.shape}, levels={levels}: a GAN makes continuous data, not tokens.")
        if latent_dim < 1 or discriminator_steps < 1 or micro_batches < 1:
            raise ValueError(
                f"latent_dim={latent_dim}, discriminator_steps={discriminator_steps}, micro_batches={micro_batches}:"
                " each is at least 1."
            )
        if gradient_clip_norm is not None and gradient_clip_norm <= 0:
            raise ValueError(f"gradient_clip_norm={gradient_clip_norm}: a norm to clip at is above 0.")
        if (width is not None and width < 1) or (depth is not None and depth < 0):
            raise ValueError(f"width={width}, depth={depth}: a width is at least 1, a depth at least 0.")
        if regularisers is not None and not isinstance(regularisers, Iterable):
            raise TypeError(f"regularisers={regularisers!r}: give a list of them.")
        check_networks(generator=generator, discriminator=discriminator)
        self.condition_on(num_classes, conditional, class_prior)
        self.latent_dim = latent_dim
        self.loss = loss or Relativistic()
        self.regularisers = tuple((R1(0.1, every=16), R2(0.1, every=16)) if regularisers is None else regularisers)
        if len({type(r) for r in self.regularisers}) < len(self.regularisers):
            raise ValueError(f"regularisers={list(self.regularisers)}: state each kind once, with its weight.")
        self.pack_size = max([r.size for r in self.regularisers], default=1)
        if self.pack_size > 1 and self.num_classes is not None:
            raise ValueError("Packing shows several data for one verdict; it does not go with conditional=True.")
        self.augment = check_kinds(augment, self.modality)
        self.discriminator_steps, self.micro_batches = discriminator_steps, micro_batches
        self.gradient_clip_norm = gradient_clip_norm
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer

        if network in USUAL:
            network = USUAL[network] if self.modality == "image" else "mlp"
        make = partial(self._networks, network, width, depth)
        dense = network == "mlp" and self.modality == "image"
        own = within_memory(make, "a smaller width, or convolutions" if dense else "a smaller width")
        self.generator, self.discriminator = generator or own[0], discriminator or own[1]
        #: whether tanh keeps what the generator makes within its range; a network without normalisation would get
        #: stuck at its ends
        self.bounded = self.levels is not None and not isinstance(self.generator, R3GANGenerator)
        for regulariser in self.regularisers:
            regulariser.constrain(self.discriminator)
        #: how many steps the generator has made
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))
        #: each loss and penalty per datum, as of the last iteration that had it
        self._latest: dict[str, Tensor] = {}

    def _networks(self, network: str | None, width: int | None, depth: int | None) -> tuple[nn.Module, nn.Module]:
        inputs, outputs = self.latent_dim + (self.num_classes or 0), self.num_classes or 1
        seen = (self.pack_size * self.shape[0], *self.shape[1:])
        if network == "mlp":
            sizes = {"width": width or 128, "depth": 2 if depth is None else depth}
            return MLP(inputs, self.num_dims, **sizes), MLP(self.pack_size * self.num_dims, outputs, **sizes)
        if network == "dcgan":
            if depth is not None:
                raise ValueError(f"depth={depth}: 'dcgan' is as deep as the images ask for; leave it out.")
            return (
                DCGANGenerator(inputs, self.shape, width=width or 32),
                DCGANDiscriminator(seen, outputs, width=width or 32),
            )
        if network == "r3gan":
            sizes = {"width": width or 128, "depth": 1 if depth is None else depth}
            return R3GANGenerator(inputs, self.shape, **sizes), R3GANDiscriminator(seen, outputs, **sizes)
        if network == "resnet":
            sizes = {"width": width or 32, "depth": 1 if depth is None else depth}
            return ResNetDecoder(inputs, self.shape, **sizes), ResNetEncoder(seen, outputs, **sizes)
        raise ValueError(
            f"network={network!r}: choose 'mlp', 'r3gan', 'dcgan' or 'resnet', or give `generator` and"
            " `discriminator`."
        )

    # ---- the two networks; inside, images and waveforms lie in [−1, 1]

    def draw_latents(self, num: int, labels: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """z ~ N(0, I), followed by the one-hot class if the model is conditional: (num, d [+ C]).

        Labels are classes that were checked before; where a conditional model is given none, they are drawn.
        """
        if labels is None:
            labels = self.labels_to_sample(None, num, self.like, generator)
        z = normal((num, self.latent_dim), like=self.like, generator=generator)
        return z if labels is None else torch.cat([z, F.one_hot(labels, self.num_classes or 0).to(z.dtype)], 1)

    def generate(self, latents: Tensor) -> Tensor:
        """G: (B, *shape), as the discriminator is shown it."""
        made = self.generator(to_network(latents, self.generator))
        if made.numel() != latents.shape[0] * self.num_dims:
            raise ValueError(
                f"The generator must map {tuple(latents.shape)} to {(len(latents), *self.shape)} up to reshaping, but"
                f" gave {tuple(made.shape)}."
            )
        made = made.reshape(latents.shape[0], *self.shape).to(latents.dtype)
        return made.tanh() if self.bounded else made

    def score(self, seen: Tensor, labels: Tensor | None) -> Tensor:
        """D of data (of packs) in the networks' range, (B,): the output of their class, if conditional."""
        outputs = self.discriminator(to_network(seen, self.discriminator))
        if outputs.shape != (len(seen), self.num_classes or 1):
            raise ValueError(
                f"The discriminator must map data to {(len(seen), self.num_classes or 1)}, but gave"
                f" {tuple(outputs.shape)}."
            )
        outputs = outputs.to(seen.dtype)
        return outputs[:, 0] if labels is None else outputs.gather(1, labels[:, None])[:, 0]

    @property
    def differentiated_twice(self) -> tuple[str, ...]:
        """The networks of whose gradient the gradient is taken: the discriminator, where a penalty may be on that."""
        penalised = any(type(r).penalty is not Regulariser.penalty for r in self.regularisers)
        return ("discriminator",) if penalised else ()

    def to_networks(self, x: Tensor) -> Tensor:
        """Data in the networks' range."""
        return 2 * x - 1 if self.levels is not None and self.modality == "image" else self.standardised(x)

    def made(self, latents: Tensor) -> Tensor:
        """G(z) in the data's range, (B, *shape), not yet on the grid, points standardised; differentiable."""
        made = self.generate(latents)
        return (made + 1) / 2 if self.levels is not None and self.modality == "image" else made

    def render(self, latents: Tensor) -> Tensor:
        """G(z) in the data's range and units, (B, *shape), not yet on the grid; differentiable."""
        return self.in_own_units(self.made(latents))

    def parts(self) -> dict[str, Part]:
        """The generator, from latents, with the one-hot class behind them if conditional, to data."""
        y = label_of(self).get("label")
        z = example(self.latent_dim)
        z = z if y is None else torch.cat([z, F.one_hot(y, self.num_classes or 0).to(z)], 1)
        return {"generator": Part(self, self.render, {"z": z}, ("x",))}

    def on_grid(self, x: Tensor) -> Tensor:
        """The nearest data that have these levels."""
        return x if self.levels is None else to_grid(x, self.levels, self.modality)

    # ---- what each of them minimises

    def discriminator_loss(
        self, x: Tensor, labels: Tensor | None, step: int, made: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The discriminator's loss and the penalties due in its step of that number, (B,) each.

        It minimises their sum.

        Args:
            x: (B, *shape).
            labels: (B,) or None.
            step: how many it has made before.
            made: (B, *shape), G(z) of latents drawn for these labels; None draws and makes them here.
        """
        if made is None:
            with torch.no_grad():
                made = self.generate(self.draw_latents(len(x), labels))
        # weights that were cast for the step before; and what PyTorch 2.6 casts in there, without a gradient, would
        # serve the generator in the same autocast
        torch.clear_autocast_cache()
        real, fake = self._to_show(self.to_networks(x)), self._to_show(made.detach())
        losses = {"loss_discriminator": self.loss.discriminator(self.score(real, labels), self.score(fake, labels))}
        for regulariser in self.regularisers:
            if regulariser.is_due(step):
                with torch.autocast(x.device.type, enabled=False):
                    penalty = regulariser.penalty(partial(self.score, labels=labels), real, fake)
                losses[regulariser.name] = penalty
        return losses

    def generator_loss(self, x: Tensor, labels: Tensor | None, made: Tensor | None = None) -> dict[str, Tensor]:
        """The generator's loss, (B,); `made` as in `discriminator_loss`, with its gradient."""
        if made is None:
            made = self.generate(self.draw_latents(len(x), labels))
        fake = self.score(self._to_show(made), labels)
        if not self.loss.relativistic:
            return {"loss_generator": self.loss.generator(fake)}
        with torch.no_grad():
            real = self.score(self._to_show(self.to_networks(x)), labels)
        return {"loss_generator": self.loss.generator(fake, real)}

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Both players' losses side by side; "loss" is their sum, which nobody minimises: see `training_step`."""
        labels = self._own_labels(x, labels)
        losses = self.discriminator_loss(x, labels, self._steps_made()) | self.generator_loss(x, labels)
        return {"loss": torch.stack(list(losses.values())).sum(0), **losses}

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """What D says of real and of generated data; of packs it says nothing that belongs to one datum."""
        if self.pack_size > 1:
            return {}
        labels = self._own_labels(x, labels)
        fake = self.generate(self.draw_latents(len(x), labels, generator))
        return {"score_real": self.score(self.to_networks(x), labels), "score_fake": self.score(fake, labels)}

    def _to_show(self, x: Tensor) -> Tensor:
        """What the discriminator is shown in training of data in the networks' range: augmented anew, in packs."""
        return packed(augmented(x, self.augment), self.pack_size)

    def _own_labels(self, x: Tensor, labels: Tensor | None) -> Tensor | None:
        """The labels, where the model is one that reads them."""
        return None if self.num_classes is None else self.checked_labels(labels, len(x))

    # ---- training: one iteration is the discriminator's steps and one of the generator

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """One iteration.

        What is logged of the discriminator is the mean over the data of all its steps, of a penalty over those in
        which it was due; one that was due in none of them keeps its value. `train/loss` is the sum of what is logged.
        """
        x, labels = self.unpack(batch, "train")
        logs, steps = self._logs_this_step(), self._steps_made()  # before the steps, which move on what these count
        *shares, last = _shares(x, self._own_labels(x, labels), self.discriminator_steps, self.pack_size)
        losses = [self.discriminator_step(*share, step) for step, share in enumerate(shares, steps)]
        made = self.generate(self.draw_latents(len(last[0]), last[1])) if self.micro_batches == 1 else None
        losses.append(self.discriminator_step(*last, steps + len(shares), made))
        losses.append(self.generator_step(*last, made))
        self.iteration += 1
        for schedule in self._schedules():
            self.lr_scheduler_step(schedule, None)
        self._latest |= _joined(losses)
        total = torch.stack([values.mean() for values in self._latest.values()]).sum()
        self._note({"loss": total, **self._latest})
        if logs:
            self._log_training({"loss": total, **self._latest}, x)

    def discriminator_step(
        self, x: Tensor, labels: Tensor | None, step: int, made: Tensor | None = None
    ) -> dict[str, Tensor]:
        """One step of the discriminator; the generator stays as it is.

        Args:
            x: (B, *shape), its share of the batch.
            labels, step, made: as in `discriminator_loss`; `made` with one micro-batch alone.

        Returns:
            The loss and the penalties due, (B,) each, without gradients.
        """
        _, optimizer = self.trainer.optimizers
        optimizer.zero_grad()
        losses = self._backward(partial(self.discriminator_loss, step=step, made=made), x, labels)
        # Through the strategy, not through Lightning's wrapper, which would count this as a step of the Trainer's.
        self.trainer.strategy.optimizer_step(optimizer, lambda: None)
        return losses

    def generator_step(self, x: Tensor, labels: Tensor | None, made: Tensor | None = None) -> dict[str, Tensor]:
        """One step of the generator; the discriminator stays as it is. It is the Trainer's step.

        Returns:
            The loss, (B,), without gradients.
        """
        optimizer = self.optimizers()[0]  # type: ignore[index]
        optimizer.zero_grad()
        with _frozen(self.discriminator):
            losses = self._backward(partial(self.generator_loss, made=made), x, labels)
        optimizer.step()
        return losses

    def _backward(self, losses_of: Losses, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Adds up the gradient of Σ losses / B by micro-batches, none too small for a pack; returns the losses."""
        parts = []
        for part in portions(min(self.micro_batches, max(1, len(x) // self.pack_size)), x, labels):
            losses = losses_of(*part)
            # autocast reaches into a backward pass: a penalty's, of second derivatives, it would round
            with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
                self.manual_backward(torch.stack(list(losses.values())).sum() / len(x))
            parts.append({name: values.detach() for name, values in losses.items()})
        return _joined(parts)

    def _steps_made(self) -> int:
        """By the discriminator, so far: the Trainer counts the iterations."""
        return self.global_step * self.discriminator_steps

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips the gradient of the network that is about to step."""
        if self.gradient_clip_norm is not None:
            self.clip_gradients(optimizer, self.gradient_clip_norm, "norm")

    def setup(self, stage: str) -> None:
        """Tells DDP that in each step one of the networks gets no gradient, or it would wait for it."""
        super().setup(stage)
        if isinstance(self.trainer.strategy, DDPStrategy):
            # A private name: in public this is an argument of DDPStrategy, which the Trainer has built before it
            # knows the module; and `strategy: ddp` is to train a GAN like any other model.
            self.trainer.strategy._ddp_kwargs["find_unused_parameters"] = True

    def default_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """Adam without momentum, as adversaries that chase each other should have none."""
        return torch.optim.Adam(parameters, lr=2e-4, betas=(0.0, 0.99))

    def configure_optimizers(self) -> Any:
        """The generator's optimiser and the discriminator's, each with the schedule."""
        builders = {self.generator: self.generator_optimizer, self.discriminator: self.discriminator_optimizer}
        optimizers = [
            fused((build or self.default_optimizer)([p for p in network.parameters() if p.requires_grad]))
            for network, build in builders.items()
        ]
        if self.lr_scheduler is None:
            return optimizers, []
        made = [schedule_for(self.lr_scheduler, optimizer, self._trainer) for optimizer in optimizers]
        if any(isinstance(one, ReduceLROnPlateau) for one in made):
            raise ValueError("lr_scheduler: a GAN's schedules count iterations; one that waits for a plateau cannot.")
        return optimizers, made

    def _schedules(self) -> list[Any]:
        return [config.scheduler for config in self.trainer.lr_scheduler_configs]

    # ---- capabilities; `invert`, `interpolate` and `complete` are InversionMixin's

    @torch.no_grad()
    def sample(self, num_samples: int, *, labels: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """G(z) for z ~ N(0, I), rounded to the data's grid.

        Args:
            num_samples: N.
            labels: (N,) int64, if the model is conditional; None draws them from p(y).
            generator: of the noise.

        Returns:
            (N, *shape), in the data's range.

        Raises:
            ValueError: if an unconditional model is given labels.
        """
        labels = self.labels_to_sample(labels, num_samples, self.like, generator)
        return self.on_grid(self.render(self.draw_latents(num_samples, labels, generator)))

    @torch.no_grad()
    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """How unlike everything that the generator makes.

        Args:
            x: (B, *shape).
            scorer: "reconstruction" (the default): ‖x − G(z)‖² after inversion, in squared units of the data (of
                points, in which each column is standardised);
                "discriminator": −D(x), of the class that x fits best, if conditional. D was trained to tell real
                from generated data, not usual from odd.

        Returns:
            (B,), higher = odder.

        Raises:
            ValueError: for another scorer, or for "discriminator" of a model trained on packs.
        """
        x = self.check(x)
        if scorer in (None, "reconstruction"):
            return self.residual(x)
        if scorer != "discriminator":
            raise ValueError(f"scorer={scorer!r}: a GAN knows 'reconstruction' and 'discriminator'.")
        if self.pack_size > 1:
            raise ValueError("scorer='discriminator': this one judges packs of data, not a datum.")
        judged = self.discriminator(to_network(self.to_networks(x), self.discriminator)).to(x.dtype)
        return -(judged if self.num_classes is None else judged[:, self.present_classes()]).amax(1)


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """No gradients for the network's parameters."""
    trained = [p for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _shares(x: Tensor, labels: Tensor | None, num: int, least: int) -> list[tuple[Tensor, Tensor | None]]:
    """The batch in so many shares of at least `least` data; too few for that are drawn again, in turn."""
    if len(x) < num * least:
        again = torch.arange(num * least, device=x.device) % len(x)
        x, labels = x[again], None if labels is None else labels[again]
    return portions(num, x, labels)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The values of each name, one part after the other; not every part has every name."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in names}
