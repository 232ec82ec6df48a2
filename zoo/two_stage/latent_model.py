"""A generator of codes: an autoencoder, and a model of its codes (van den Oord et al. 2017; Rombach et al. 2022).

    z = the codes of x,   p(x) = Σ_z p(x | z) p(z)   (or ∫ … dz),   p(x | z) the autoencoder's, p(z) any other model's

The codes are far fewer than the pixels, so that p(z), the prior, can be a model whose cost grows fast with their
number: a transformer that writes them one by one, a masked diffusion, or where codes are continuous a diffusion in
their space. The prior is a model like any other, of data that happen to be codes.

The likelihood of x is bounded by that of its own code. Where codes are discrete, z* is the only one that the encoder
gives, and log p(x) ≥ log p(x | z*) + log p(z*): all other terms of the sum are left out. Where q(z | x) is Gaussian,

    log p(x) ≥ E_q [log p(x | z) + log p(z) − log q(z | x)].
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from genzoo.zoo import sharing
from genzoo.zoo.autoregressive.gpt import GPT
from genzoo.zoo.autoregressive.pixelcnn import PixelCNN
from genzoo.zoo.checks import check_count
from genzoo.zoo.diffusion.base import Diffusion
from genzoo.zoo.diffusion.modules import FlowMatching
from genzoo.zoo.interface import Completes, HasLogProb, Interpolates, LogProbKind, Samples
from genzoo.zoo.latent.quantised import QuantisedAutoencoder
from genzoo.zoo.latent.vae import VAE
from genzoo.zoo.likelihoods import Output, shown
from genzoo.zoo.mixins import ClassPrior, CompletionMixin, Conditional, ConditionalMixin, LogProbMixin, check_ends
from genzoo.zoo.module import ZooModule
from genzoo.zoo.parts import Part
from genzoo.zoo.randomness import Generator, PerDatum, check_generator
from genzoo.zoo.statement import block_of, built_class, on_its_own
from genzoo.zoo.two_stage.spaces import space_of
from genzoo.zoo.two_stage.stages import TwoStageMixin

#: makes a module of a shape and a number of levels
Builder = Callable[[Sequence[int], int | None], ZooModule]


class LatentModel(TwoStageMixin, ConditionalMixin, LogProbMixin, CompletionMixin, ZooModule):
    """A model of images by way of their codes.

    Capabilities: `sample`, `log_prob` (a lower bound; an estimate, where the prior's is one), `anomaly_score`,
    `complete` (a heuristic), `reconstruct`; `interpolate` where the prior has it; conditional, where it can be.

    The parts are trained together, the prior on the codes as they are by then; or, with `first_stage`, one after the
    other, each by its own optimiser and schedule; or, where the autoencoder is trained already, the prior alone.

    Args:
        shape, levels: as in `ZooModule`; images only.
        autoencoder: a `QuantisedAutoencoder`, or a `VAE` with network="spatial", in one of three ways: a class, or a
            partial of one, which is given the data's shape and levels (in YAML: `class_path` and `init_args` without
            them); a trained one as a module, or by what `genzoo.load` takes. A trained one stays as it is. None: a
            QuantisedAutoencoder.
        prior: a class, or a partial of one, which is given the shape and the levels of the codes: `GPT` reads them
            row by row, all others see an image. Of discrete codes it is one that does not take their numbers for
            amounts, as diffusions do. None: a `GPT` of discrete codes, `FlowMatching` of continuous ones.
        first_stage: the share of training in which the autoencoder learns alone; in the rest of it the prior does, on
            the codes of the training data, encoded once. Each part states its optimiser and its schedule, which lasts
            as long as its stage. 0: the autoencoder stays as it is, as a trained one does. None: both learn at once.
        pixel_noise: whether samples and completions are drawn from p(x | z), as `log_prob` takes them; or else are
            its mean, at the nearest level: less noisy than the model's distribution.
        num_classes: how many classes the data have.
        conditional: whether to model p(x | y), by a prior p(z | y); "auto": if there are several classes.
        class_prior: p(y) where no label is given: the classes' shares in the "training" data, or "uniform" over
            those that they have.
        optimizer, lr_scheduler: as in `ZooModule`, where both learn at once.

    Raises:
        ValueError: on arguments that do not fit each other or the data; if a trained autoencoder is for other data.
    """

    #: completions are decoded and encoded again so often, as what is known at the rim of a code informs it, too
    completion_sweeps = 2
    #: draws of the likelihood as a score
    anomaly_particles = 4
    gathered = (*ZooModule.gathered, "_seen_by_prior")

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        autoencoder: str | Builder | ZooModule | None = None,
        prior: Builder | None = None,
        first_stage: float | None = None,
        pixel_noise: bool = True,
        num_classes: int | None = None,
        conditional: Conditional = False,
        class_prior: ClassPrior = "training",
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if self.modality != "image":
            raise ValueError(f"LatentModel is for images, but the data are {self.modality}.")
        self.condition_on(num_classes, conditional, class_prior)
        self.pixel_noise = pixel_noise
        trained = isinstance(autoencoder, str | Path | ZooModule)
        if first_stage is not None and not 0 <= first_stage < 1:
            raise ValueError(f"first_stage={first_stage}: a share of training, from 0 to less than 1.")
        if trained and first_stage:
            raise ValueError(
                f"first_stage={first_stage}: the autoencoder is trained, and has no stage; leave it out."
            )
        first_stage = 0.0 if trained else first_stage
        if first_stage is not None and (optimizer or lr_scheduler):
            raise ValueError(
                "optimizer, lr_scheduler: where the parts are trained one by one, each has its own; state them with"
                " the autoencoder and the prior."
            )
        with on_its_own():
            built = self._autoencoder(autoencoder)
            kind = built_class(prior) if prior is not None else None
            self.space = space_of(built, as_text=kind is None or issubclass(kind, GPT))
            default: Builder = GPT if self.space.levels is not None else FlowMatching  # type: ignore[assignment]
            self.autoencoder = built
            self.prior = self._prior(prior or default)
        stating = [part for part in (built, self.prior) if part.optimizer or part.lr_scheduler]
        if first_stage is None and stating:
            raise ValueError(
                f"first_stage=None: both parts learn at once, by the optimizer and the lr_scheduler of the whole, but"
                f" {type(stating[0]).__name__} states its own. State them beside it, or give first_stage."
            )
        if first_stage == 0:
            self.autoencoder.requires_grad_(False)
        if trained:
            self.hparams["first_stage"] = 0.0
            self.hparams["autoencoder"] = block_of(self.autoencoder, without=("shape", "levels", "num_classes"))
            self.unstated = [name for name in self.unstated if name != "autoencoder"]
        self.begin_with("both" if first_stage is None else "autoencoder" if first_stage else "prior", first_stage)
        self.log_prob_kind: LogProbKind = "estimate" if self._log_prior.log_prob_kind == "estimate" else "lower_bound"
        if isinstance(self.prior, Interpolates):
            self.interpolate = self._interpolate
        self._posteriors: list[Tensor] = []  # of the validation under way

    def _autoencoder(self, given: str | Path | Builder | ZooModule | None) -> ZooModule:
        if isinstance(given, str | Path):
            loaded: ZooModule = sharing.hub.load(given)
            return self._autoencoder(loaded)
        if not isinstance(given, ZooModule):
            return (given or QuantisedAutoencoder)(self.shape, self.levels)
        if (given.shape, given.levels) != (self.shape, self.levels):
            raise ValueError(
                f"autoencoder: it is for data of shape={given.shape}, levels={given.levels}, but these have"
                f" shape={self.shape}, levels={self.levels}."
            )
        return given

    def _prior(self, builder: Builder) -> ZooModule:
        classes: Mapping[str, Any] = {}
        if self.num_classes is not None:
            classes = {"num_classes": self.num_classes, "conditional": True, "class_prior": self.class_prior}
            taken = inspect.signature(built_class(builder)).parameters
            if "arguments" not in taken and "conditional" not in taken:
                raise ValueError(
                    f"conditional: {built_class(builder).__name__} takes no classes: choose another prior."
                )
        prior = partial(builder, **classes)(self.space.shape, self.space.levels)
        needed = (Samples, HasLogProb, Completes)
        if not isinstance(prior, ZooModule) or not all(isinstance(prior, capability) for capability in needed):
            raise ValueError(
                f"prior: it samples, completes and has a log_prob, which {type(prior).__name__} does not."
            )
        if self.space.levels is not None and reads_amounts(prior):
            raise ValueError(
                f"prior: {type(prior).__name__} takes the numbers of codes for amounts, but neighbours in a codebook"
                " need not be alike. Choose GPT, MaskedDiffusion or PixelCNN with distribution='softmax', or an"
                " autoencoder of continuous codes: VAE with network='spatial'."
            )
        return prior

    # ---- the model

    @property
    def _log_prior(self) -> Any:
        """The prior, told the classes' shares, for what it does without a label."""
        prior: Any = self.prior
        if self.num_classes is not None:
            prior.class_counts.copy_(self.class_counts)
        return prior

    def decoded(self, z: Tensor) -> Output:
        """p(x | z) for codes as the prior sees them."""
        return self.space.output(self.autoencoder, z)

    def pixels(self, z: Tensor, generator: Generator | None) -> Tensor:
        """A draw from p(x | z), or its mean at the nearest level: see `pixel_noise`."""
        return shown(self.decoded(z), self.levels, self.pixel_noise, generator)

    @property
    def added_loss(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The autoencoder's: see `FeatureLoss`."""
        added: Callable[[Tensor, Tensor], Tensor] | None = self.autoencoder.added_loss  # type: ignore[assignment]
        return added

    @added_loss.setter
    def added_loss(self, added: Callable[[Tensor, Tensor], Tensor] | None) -> None:
        self.autoencoder.added_loss = added  # type: ignore[assignment]

    def parts(self) -> dict[str, Part]:
        """Those of the autoencoder and those of the prior, whose data are codes, standardised as `facts` say.

        A part of the prior that is called as one of the autoencoder's has "prior_" before its name.
        """
        parts: dict[str, Part] = dict(self.autoencoder.parts())  # type: ignore[operator]
        for name, part in self.prior.parts().items():  # type: ignore[operator]
            part.facts |= self.space.facts()
            parts[f"prior_{name}" if name in parts else name] = part
        return parts

    # ---- training

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """What the part that learns is to learn: the autoencoder's loss, the prior's, or both and their sum."""
        if self.stage == "autoencoder":
            if self.num_classes is not None:
                self._given(labels, len(x))  # which the prior will need
            return self.autoencoder.objective(x, None)
        if (kept := self.kept_codes(len(x))) is not None:
            posterior, labels = kept
            self._sound_labels = labels  # checked when they were kept
        else:
            with torch.no_grad():
                posterior = self.space.posterior(self.autoencoder, x)
        given = None if self.num_classes is None else self._given(labels, len(x))
        z = self._as_data(self.space.draw(posterior))
        if self.training and self._trainer is not None:
            self.prior.on_train_batch_start((z, given), 0)
        of_prior = self.prior.objective(z, given)
        if self.stage == "prior":
            return of_prior
        of_codes = self.autoencoder.objective(x, None)
        both = {"autoencoder_loss": of_codes["loss"], "prior_loss": of_prior["loss"]}
        return {"loss": of_codes["loss"] + of_prior["loss"], **both}

    def _as_data(self, z: Tensor) -> Tensor:
        """Codes in the precision that the prior's data have, where it is higher than theirs."""
        return z.to(torch.promote_types(z.dtype, self.prior.like.dtype)) if z.is_floating_point() else z

    def _given(self, labels: Tensor | None, number: int) -> Tensor | None:
        """The labels, checked; the prior has no need to look at them again."""
        prior: Any = self.prior
        prior._sound_labels = self.checked_labels(labels, number)
        return prior._sound_labels

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """−log p(x | z); and what the prior says of z: its "nll" becomes that of x, the rest is `prior_…`."""
        posterior = self.space.posterior(self.autoencoder, x)
        z = self._as_data(self.space.draw(posterior, generator))
        error = -self.decoded(z).log_prob(x)
        found = {"reconstruction_error": error}
        labels = None if self.num_classes is None or labels is None else self._given(labels, len(x))
        for name, value in self._log_prior.evaluation(z, labels, generator).items():
            if name in ("nll", "conditional_nll"):
                found[name] = (value + error + self.space.log_q(posterior, z)).to(error.dtype)
            else:
                found[f"prior_{name}"] = value
        return found

    def on_validation_epoch_start(self) -> None:
        """Forgets those of a validation that was broken off."""
        super().on_validation_epoch_start()
        self._posteriors = []

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs `evaluation`, and remembers the codes."""
        super().validation_step(batch, batch_idx, dataloader_idx)
        if self.space.levels is not None:
            self._posteriors.append(self.space.posterior(self.autoencoder, self.unpack(batch)[0]))

    @property
    def settles(self) -> bool:  # type: ignore[override]
        """Whether the prior does."""
        return self.prior.settles

    @property
    def settles_after(self) -> int:  # type: ignore[override]
        """The prior's own."""
        return self.prior.settles_after

    def settle(self, least: int = 1) -> None:
        """The prior's own: variances of a `DDPM` are fitted to the codes that it was shown."""
        self.prior.settle(least)

    @property
    def _seen_by_prior(self) -> dict[str, Any]:
        """What the prior has gathered for that, which a run that goes on takes up."""
        return {name: getattr(self.prior, name) for name in ("_seen", "_since") if hasattr(self.prior, name)}

    @_seen_by_prior.setter
    def _seen_by_prior(self, seen: Any) -> None:
        known = seen if isinstance(seen, dict) else {"_seen": seen or []}  # as earlier versions had it
        for name, value in self._seen_by_prior.items():
            setattr(self.prior, name, known.get(name, type(value)()))

    def on_validation_epoch_end(self) -> None:
        """Logs how the whole split uses the codes."""
        super().on_validation_epoch_end()
        if self._posteriors:
            for name, value in self.space.figures(torch.cat(self._posteriors)).items():
                self.log(f"val/{name}", value.to(torch.float32), sync_dist=True)
        self._posteriors = []

    # ---- capabilities

    @property
    def network_evaluations(self) -> int:
        """Those of the prior, and the decoder's."""
        return self.prior.network_evaluations + 1

    @property
    def guidance(self) -> float:
        """The prior's, where it has some: of samples by default."""
        prior: Any = self.prior
        own: float = prior.guidance
        return own

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        *,
        labels: Tensor | None = None,
        generator: Generator | None = None,
        **arguments: Any,
    ) -> Tensor:
        """z ~ p(z), then x ~ p(x | z), or its mean: see `pixel_noise`.

        Args:
            num_samples: N.
            labels: (N,), where the model is conditional; without them they are drawn from p(y).
            generator: of the labels, the codes and the draws from p(x | z).
            arguments: what else the prior's `sample` takes: a temperature, steps, guidance.

        Returns:
            (N, *shape), in the data's range and on its grid.

        Raises:
            ValueError: on arguments that do not fit the model, or codes of another length than an image's.
        """
        prior: Any = self.prior
        drawn = self.labels_to_sample(labels, num_samples, self.like, generator)
        prior._sound_labels = drawn
        z = prior.sample(num_samples, labels=drawn, generator=generator, **arguments)
        if z.shape[1:] != self.space.shape:  # a prior that writes texts takes a length
            raise ValueError(
                f"sample: an image has codes of shape {self.space.shape}, but {tuple(z.shape[1:])} were asked for:"
                " leave the length out."
            )
        return self.pixels(z, generator)

    @torch.no_grad()
    def log_prob(
        self,
        x: Tensor,
        *,
        labels: Tensor | None = None,
        num_particles: int = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """The bound: log p(x | z*) + log p(z*); or log p(x | z) + log p(z) − log q(z | x), the mean over draws of z.

        Args:
            x: (B, *shape).
            labels: (B,), where the model is conditional; without them log p(z) is that of all classes.
            num_particles: of the prior's `log_prob`; or draws from q(z | x), with one particle each.
            generator: `PerDatum(x)` makes the value depend on x alone.

        Returns:
            (B,), nats.
        """
        x = self.check(x)
        check_count("num_particles", num_particles)
        check_generator(generator)
        prior = self._log_prior
        given = None if labels is None else self._given(labels, len(x))
        posterior = self.space.posterior(self.autoencoder, x)
        draws = 1 if self.space.levels is not None else num_particles
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _ in range(draws):
            z = self._as_data(self.space.draw(posterior, generator))
            options = {"num_particles": num_particles // draws, "generator": generator}
            log_prior = prior.log_prob(z, **options, **({} if given is None else {"labels": given}))
            total += self.decoded(z).log_prob(x).double() + log_prior - self.space.log_q(posterior, z)
        return (total / draws).to(torch.promote_types(x.dtype, self.like.dtype))

    @property
    def log_prob_protocol(self) -> str:
        """How `log_prob` is found, as a part of a sentence."""
        of_code = "its own code alone" if self.space.levels is not None else "a draw from q(z | x) for each particle"
        own = getattr(self.prior, "log_prob_protocol", None)
        return f"{of_code}{f', whose log p(z) is by: {own}' if own else ''}"

    @torch.no_grad()
    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """How badly x is explained.

        Args:
            x: (B, *shape).
            scorer: "nll" (the default where codes are discrete): −log p(x), by the bound; "reconstruction" (the
                default where they are continuous, and a likelihood may take many steps): −log p(x | E z).

        Returns:
            (B,), nats, higher = odder.
        """
        x = self.check(x)
        scorer = ("reconstruction" if self.space.levels is None else "nll") if scorer is None else scorer
        if scorer == "reconstruction":
            return -self.decoded(self.space.mean(self.space.posterior(self.autoencoder, x))).log_prob(x)
        if scorer != "nll":
            raise ValueError(f"scorer={scorer!r}: {type(self).__name__} knows 'nll' and 'reconstruction'.")
        return -self.log_prob(x, num_particles=self.anomaly_particles, generator=PerDatum(x))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """(B, *shape): the expected image of the expected code."""
        posterior = self.space.posterior(self.autoencoder, self.check(x, on_grid=False))
        return self.decoded(self.space.mean(posterior)).mean

    @torch.no_grad()
    def _interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        """Decodes the prior's path between the expected codes of a and of b: (steps, B, *shape)."""
        check_ends(a, b, steps)
        ends = (self.space.mean(self.space.posterior(self.autoencoder, self.check(x))) for x in (a, b))
        prior: Any = self.prior
        return torch.stack([self.decoded(z).mean for z in prior.interpolate(*ends, steps)])

    def fill_in(
        self,
        x: Tensor,
        known: Tensor,
        num_samples: int,
        generator: Generator | None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """By the prior, from the codes whose pixels are all known; unknown pixels are 0.5 at first.

        A heuristic: a code is also what is around it, so after a first completion the known codes are found again,
        and the others drawn anew. Where the prior has to go by an order (GPT's), it does not heed what comes later.
        """
        prior: Any = self.prior
        mask = known.expand(num_samples, *x.shape).flatten(0, 1)
        target = x.expand(num_samples, *x.shape).flatten(0, 1)
        options = {}
        if labels is not None:
            prior._sound_labels = labels.repeat(num_samples)
            options = {"labels": prior._sound_labels}
        else:
            prior = self._log_prior
        known_codes, state = self.space.known(mask), torch.where(mask, target, 0.5)
        for _ in range(self.completion_sweeps):
            z = self._as_data(self.space.mean(self.space.posterior(self.autoencoder, state)))
            z = torch.where(known_codes, z, prior.fill_in(z, known_codes, 1, generator, **options)[0])
            state = torch.where(mask, target, self.pixels(z, generator))
        return state.unflatten(0, (num_samples, len(x)))


def reads_amounts(prior: ZooModule) -> bool:
    """Whether a prior takes the number of a code for an amount, as if neighbours in a codebook were alike."""
    mixes = isinstance(prior, PixelCNN) and prior.mixture is not None
    return mixes or isinstance(prior, Diffusion | VAE)
