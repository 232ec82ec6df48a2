"""From the essential part of a capability to the whole of it.

A family that has `log_prob` gets `bits_per_dim`, one that can `fill_in` gets `complete`, one that can `encode` and
`decode` gets `reconstruct`, `interpolate` and `traverse`, one that can be conditional gets its labels checked. They
go before `ZooModule` in the list of bases.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from genzoo.zoo.checks import check_count
from genzoo.zoo.interface import LogProbKind
from genzoo.zoo.processes import total
from genzoo.zoo.randomness import Generator, PerDatum, check_generator, uniform


class LogProbMixin:
    """Gives `bits_per_dim` to a family that has `log_prob`."""

    log_prob_kind: LogProbKind

    # from ZooModule
    levels: int | None
    num_observed: Callable[[Tensor], Tensor]

    @abstractmethod
    def log_prob(self, x: Tensor, *, num_particles: int = 1, generator: Generator | None = None) -> Tensor:
        """(B,), nats."""

    def bits_per_dim(self, x: Tensor, **arguments: Any) -> Tensor:
        """−log p(x) / (D ln 2), (B,): bits that an ideal code needs for each dimension; arguments as in log_prob.

        Of a sound that is shorter than the others D is the number of its samples.

        Raises:
            ValueError: if the data are continuous, too.
        """
        if self.levels is None:
            raise ValueError(
                "bits_per_dim: these data are continuous (levels=None). How long their code is depends on how finely"
                " they are told apart; log_prob states their density, in nats."
            )
        x = self.check(x)  # type: ignore[attr-defined]
        return -self.log_prob(x, **arguments) / (self.num_observed(x) * math.log(2))


class CompletionMixin:
    """Gives `complete` to a family that can `fill_in`: checks the mask, and pastes what is known."""

    @abstractmethod
    def fill_in(self, x: Tensor, known: Tensor, num_samples: int, generator: Generator | None) -> Tensor:
        """(num_samples, B, *shape), completions given x where `known`; unknown values of x must not be read.

        A family that can be conditional takes `labels` besides, (B,) or None.
        """

    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        known: Tensor,
        *,
        num_samples: int = 1,
        labels: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Completions of partial data.

        Args:
            x: (B, *shape), in the data's range; its values where `known` is False do not matter. In half precision it
                is taken for what it was before, as in `ZooModule.check`.
            known: bool, broadcastable to x; True = observed.
            num_samples: how many completions of each, at least 1.
            labels: (B,) int64, the classes of the data, where the model is conditional; without them it is as its
                `fill_in` says.
            generator: `PerDatum(x)` makes the completions of a datum depend on it alone.

        Returns:
            (num_samples, B, *shape); `out[:, known] == x[known]` bit for bit.

        Raises:
            TypeError: if `known` is not boolean.
            ValueError: if it does not broadcast to x, x is not the model's data, num_samples no count, or labels no
                classes of the model.
        """
        check_count("num_samples", num_samples)
        check_generator(generator)
        if not isinstance(x, Tensor):
            x = self.check(x)  # which says what x should be
        known = broadcast(known, x.shape)
        nothing_to_do = bool(known.all())  # where the mask was given, as a rule not on the accelerator
        known = known.to(x.device)
        x = self.check(torch.where(known, x, torch.zeros_like(x)))  # type: ignore[attr-defined]
        options = {} if labels is None else {"labels": self._labels_to_complete(labels, x)}
        if nothing_to_do:
            return x.expand(num_samples, *x.shape).clone()
        if isinstance(generator, PerDatum):
            generator = generator.repeated(num_samples)
        return torch.where(known, x, self.fill_in(x, known, num_samples, generator, **options))

    def _labels_to_complete(self, labels: Tensor, x: Tensor) -> Tensor:
        if not isinstance(self, ConditionalMixin):
            raise ValueError(f"labels: a {type(self).__name__} is not conditional, so its `complete` takes none.")
        checked = self.checked_labels(labels, len(x))
        assert checked is not None
        return checked


class LatentMixin:
    """Gives `reconstruct`, `interpolate` and `traverse` to a family that can `encode` and `decode`."""

    @abstractmethod
    def encode(self, x: Tensor) -> Any:
        """A distribution over codes with `.mean`."""

    @abstractmethod
    def decode(self, z: Tensor) -> Any:
        """A distribution over data with `.mean`."""

    def decoded(self, z: Tensor) -> Any:
        """What `decode` gives, for codes that are the model's own and need no check."""
        return self.decode(z)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """(B, *shape): the expected datum of the expected code."""
        return self.decoded(self.encode(x).mean).mean

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        """Decodes the straight line between the codes of a and of b.

        Args:
            a: (B, *shape), the beginnings.
            b: (B, *shape), the ends.
            steps: at least 2, both ends included.

        Returns:
            (steps, B, *shape); the first is `reconstruct(a)`, the last `reconstruct(b)`.
        """
        check_ends(a, b, steps)
        start, end = self.encode(a).mean, self.encode(b).mean
        weights = torch.linspace(0, 1, steps).tolist()
        return torch.stack([self.decoded(torch.lerp(start, end, w)).mean for w in weights])

    @torch.no_grad()
    def traverse(self, x: Tensor, dim: int, values: Sequence[float] | Tensor) -> Tensor:
        """Decodes the code of x with one of its dimensions set to each value in turn.

        Args:
            x: (B, *shape).
            dim: which dimension of the code.
            values: what it is set to, in the code's own units; finite.

        Returns:
            (len(values), B, *shape).
        """
        z = self.encode(x).mean
        if not isinstance(dim, Integral) or isinstance(dim, bool) or not -z.shape[1] <= dim < z.shape[1]:
            raise ValueError(f"dim={dim!r}: the code has {z.shape[1]} dimensions, of which it is the number of one.")
        try:
            numbers = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError):
            numbers = torch.zeros(0)
        real = not numbers.is_complex() and numbers.dtype != torch.bool
        if numbers.ndim != 1 or not len(numbers) or not real or not bool(numbers.isfinite().all()):
            raise ValueError("values: a dimension of the code is set to each of one or more finite numbers in turn.")
        out = []
        for value in numbers.tolist():
            moved = z.clone()
            moved[:, dim] = value
            out.append(self.decoded(moved).mean)
        return torch.stack(out)


def portions(num: int, *of_data: Tensor | None) -> list[tuple[Any, ...]]:
    """Tensors (B, ...) of the same data in so many parts, whose sizes differ by at most one; None is None in each."""
    return list(zip(*([None] * num if t is None else t.tensor_split(num) for t in of_data), strict=True))


def broadcast(known: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask of a completion, in the shape of what it masks.

    Raises:
        TypeError: if it is not boolean.
        ValueError: if it does not broadcast to that shape.
    """
    if not isinstance(known, Tensor) or known.dtype != torch.bool:
        given = known.dtype if isinstance(known, Tensor) else type(known).__name__
        raise TypeError(f"known must be a boolean tensor, True where x is observed, but was given {given}.")
    try:
        return known.expand(torch.Size(shape))
    except RuntimeError:
        raise ValueError(
            f"known of shape {tuple(known.shape)} does not broadcast to x of shape {tuple(shape)}."
        ) from None


def known_to_all(known: Tensor) -> Any:
    """Which dimensions are known in every datum of (B, *shape), as lists: what a loop over them asks.

    To ask a tensor is to wait for the device that it is on, so the loop asks once, before it begins.
    """
    return known.all(0).tolist()


def check_ends(a: Tensor, b: Tensor, steps: int) -> None:
    """Raises ValueError unless `steps` holds both ends of an interpolation, and each beginning has its end."""
    check_count("steps", steps, least=2)  # its two ends
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape != b.shape:
        raise ValueError(
            f"An interpolation goes from each datum of a to the same one of b, but a is {tuple(a.shape)} and b is"
            f" {tuple(b.shape)}."
        )


def great_circle(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Between a and b, (B, d): the direction turns evenly and the length changes evenly, from weight 0 to 1.

    Opposite directions, between which no great circle is singled out, are joined by a straight line.
    """
    length_a, length_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    tiny = torch.finfo(a.dtype).tiny
    unit_a, unit_b = a / length_a.clamp_min(tiny), b / length_b.clamp_min(tiny)
    angle = (unit_a * unit_b).sum(1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    direction = (((1 - weight) * angle).sin() * unit_a + (weight * angle).sin() * unit_b) / sine
    return torch.where(sine > 1e-4, direction * torch.lerp(length_a, length_b, weight), torch.lerp(a, b, weight))


def is_conditional(module: object) -> bool:
    """Whether it is a model p(x | y): one with `num_classes`, as `ConditionalMixin` sets it."""
    return getattr(module, "num_classes", None) is not None


def present_classes(module: Any) -> list[int]:
    """The classes of which a conditional model knows anything: as it says, or else all."""
    known = getattr(module, "present_classes", None)
    return list(range(module.num_classes)) if known is None else list(known())


#: whether a model is to be p(x | y); "auto": where the data have at least two classes
Conditional = bool | Literal["auto"]

#: p(y) of a conditional model: the classes' shares in the data it was trained on, or all that are among them alike
ClassPrior = Literal["training", "uniform"]


class ConditionalMixin:
    """Labels, for a family that can be trained as p(x | y): who gives them, that they are right, and how often.

    Where nobody gives a label the model is Σ_y p(y) p(x | y). The classes' shares p(y) are those of the training
    data, or all alike that these have: counted while training, and kept in a buffer. Weights without counts (those
    published before, or trained without labels) take all classes as equally likely, until `count_classes` says
    otherwise. Of a class that was never seen a model knows nothing: a label that names one is warned of, once.
    """

    #: C where the model is p(x | y), None where it is p(x)
    num_classes: int | None = None
    class_prior: ClassPrior = "training"
    #: (C,) int64, how often each class was seen in this training; of a conditional model only
    class_counts: Tensor
    #: those of the last batch, where `ZooModule` had found that they are classes before it was moved
    _sound_labels: Tensor | None = None
    _labels_are_sound: bool

    def condition_on(
        self, num_classes: int | None, conditional: Conditional, class_prior: ClassPrior = "training"
    ) -> None:
        """Sets `num_classes` and the prior; for a constructor with arguments of these names.

        Raises:
            ValueError: if the model is to be conditional, but there are no classes; for an unknown prior or wish.
        """
        if class_prior not in get_args(ClassPrior):
            raise ValueError(f"class_prior={class_prior!r}: choose 'training' or 'uniform'.")
        if conditional not in (True, False, "auto"):
            raise ValueError(f"conditional={conditional!r}: choose true, false or 'auto', which is as the data are.")
        if conditional == "auto":
            conditional = num_classes is not None and num_classes > 1
        if conditional and (num_classes is None or num_classes < 1):
            raise ValueError(
                f"conditional=True with num_classes={num_classes}: a class-conditional model takes data that have"
                " classes, and their number."
            )
        self.num_classes, self.class_prior = num_classes if conditional else None, class_prior
        self._warned_of: set[int] = set()  # classes never seen
        if self.num_classes is not None:
            counts = torch.zeros(self.num_classes, dtype=torch.int64)
            self.register_later_buffer("class_counts", counts)  # type: ignore[attr-defined]

    # ---- the classes' shares

    @property
    def class_shares(self) -> Tensor:
        """(C,) float64: p(y), the classes' shares in the training data, or one over their number; they sum to one."""
        weights = self._class_weights()
        return weights.double() / weights.sum()

    @property
    def class_log_prior(self) -> Tensor:
        """(C,) float64, nats: log p(y); −∞ for a class that the training data did not have."""
        return self.class_shares.log()

    @property
    def class_protocol(self) -> str:
        """Which p(y) that is, as a part of a sentence: "classes drawn …", "averaged over the classes …"."""
        if not bool(self.class_counts.any()):
            return "uniformly"
        if self.class_prior == "training":
            return "by their shares in the training data"
        return "uniformly" if bool(self.class_counts.all()) else "uniformly over those in the training data"

    def present_classes(self) -> list[int]:
        """The classes that have a share."""
        return self.class_log_prior.isfinite().nonzero().flatten().tolist()

    def count_classes(self, labels: Tensor) -> None:
        """Takes the classes' shares from these labels, (N,) int64, instead of those seen in training.

        Raises:
            TypeError: if they are not int64.
            ValueError: if the model is unconditional, or they are no classes of it.
        """
        if self.num_classes is None:
            raise ValueError(f"count_classes: this {type(self).__name__} is unconditional, so it has no classes.")
        size = len(labels) if isinstance(labels, Tensor) and labels.ndim else 1
        checked = self._classes(labels, max(1, size))
        assert checked is not None
        self.class_counts.copy_(checked.bincount(minlength=len(self.class_counts)))

    def _class_weights(self) -> Tensor:
        """(C,) int64, in the ratio of the shares."""
        counts = self.class_counts if self.class_prior == "training" else (self.class_counts > 0).long()
        return torch.where(self.class_counts.any(), counts, torch.ones_like(counts))

    if not TYPE_CHECKING:  # a type checker would take every name for an attribute

        def __getattr__(self, name: str) -> Any:
            # to which Python turns where a property finds no `class_counts`
            of_classes = ("class_counts", "class_shares", "class_log_prior", "class_protocol")
            if name in of_classes and self.num_classes is None:
                raise AttributeError(f"{name}: this {type(self).__name__} is unconditional, so it has no classes.")
            return super().__getattr__(name)

    def setup(self, stage: str) -> None:
        """A training counts anew; one that goes on gets its counts back from the checkpoint, after this."""
        super().setup(stage)  # type: ignore[misc]
        if stage == "fit" and self.num_classes is not None:
            self.class_counts.zero_()

    def unpack(self, batch: Any, stage: str | None = None) -> tuple[Tensor, Tensor | None]:
        """As in `ZooModule`; in training also counts the classes, those of all processes together."""
        x, labels = super().unpack(batch, stage)  # type: ignore[misc]
        if stage is not None:
            self._sound_labels, self._labels_are_sound = labels if self._labels_are_sound else None, False
        if stage == "train" and self.num_classes is not None and labels is not None:
            every = torch.arange(self.num_classes, device=labels.device)
            seen = (labels.reshape(-1, 1) == every).sum(0)  # what is no class is refused later, in one clear line
            self.class_counts.add_(total(seen))
        return x, labels

    # ---- labels

    def checked_labels(self, labels: Tensor | None, batch_size: int) -> Tensor | None:
        """The labels that a conditional model needs, where it is; None for an unconditional one.

        Warns of classes never seen, where a user names them: those of a batch of data it takes as they are, for to
        look at them would be to wait for the device in every step.

        Raises:
            TypeError: if they are not int64.
            ValueError: if a conditional model is given none, an unconditional one some, or they are no classes of it.
        """
        checked = self._classes(labels, batch_size)
        if checked is None:
            return None
        checked = checked.to(self.class_counts.device)
        if labels is not self._sound_labels and not torch.is_grad_enabled():
            unseen = checked[(self.class_counts[checked] == 0) & self.class_counts.any()]
            if news := set(unseen.unique().tolist()) - self._warned_of:
                self._warned_of |= news
                rank_zero_warn(
                    f"{type(self).__name__}: the training data had no class {', '.join(map(str, sorted(news)))}, so"
                    " what the model says of it is arbitrary."
                )
        return checked

    def _classes(self, labels: Tensor | None, batch_size: int) -> Tensor | None:
        name = type(self).__name__
        if self.num_classes is None:
            if labels is not None:
                raise ValueError(f"This {name} is unconditional: it was not trained on labels, so it takes none.")
            return None
        if labels is None:
            raise ValueError(
                f"This {name} is conditional, and was given no labels: (B,) int64 of the data's classes."
            )
        if not isinstance(labels, Tensor):
            raise TypeError(f"{name} takes labels as a tensor (B,), int64, but was given {type(labels).__name__}.")
        if labels.dtype != torch.int64:
            raise TypeError(f"{name} takes labels as int64, but was given {labels.dtype}: labels.long().")
        if labels.shape != (batch_size,):
            raise ValueError(
                f"Labels for {batch_size} data have shape ({batch_size},), but are {tuple(labels.shape)}."
            )
        if labels is self._sound_labels:  # looked at on the CPU, before they went to where to look is to wait
            return labels
        if batch_size and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(
                f"{name} was built for {self.num_classes} classes, so labels lie in [0, {self.num_classes}), but was"
                f" given labels in [{int(labels.min())}, {int(labels.max())}]."
            )
        return labels

    def labels_to_sample(
        self, labels: Tensor | None, num_samples: int, like: Tensor, generator: Generator | None
    ) -> Tensor | None:
        """The labels as given, or drawn from p(y) where a conditional model is given none; on the model's device.

        Raises:
            ValueError: if there is nothing to sample, or the labels do not fit.
        """
        check_count("num_samples", num_samples)
        if labels is None and self.num_classes is not None:
            draws = uniform((num_samples,), like=like.new_zeros((), dtype=torch.float32), generator=generator)
            # the inverse of the distribution function, in units of 1/C: where all shares are equal, these are exact
            weights = self._class_weights().to(like.device)
            edges = weights.cumsum(0).double() * len(weights) / weights.sum()
            places = (draws * len(weights)).double().clamp_max(math.nextafter(len(weights), 0))
            return torch.searchsorted(edges, places, right=True)
        return self.checked_labels(labels, num_samples)
