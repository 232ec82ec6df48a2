"""What every autoregressive model shares: the chain rule.

Any distribution over D dimensions, taken in any order, is a product of D conditionals,

    log p(x) = Σ_i log p(x_i | x_<i),

so a network whose i-th output sees only the dimensions before the i-th states a likelihood that is exact, and sums
to one. All its terms are evaluated at once, from the datum itself ("teacher forcing"); a sample takes one after the
other. A family implements `logits`, and a `draw` that does not evaluate the whole network for each dimension.
"""

import math
import zlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.zoo.checks import check_count
from genzoo.zoo.interface import LogProbKind
from genzoo.zoo.mixins import CompletionMixin, ConditionalMixin, LogProbMixin, broadcast, known_to_all, portions
from genzoo.zoo.modality import Modality, from_codes, to_codes
from genzoo.zoo.parts import Part, example, label_of
from genzoo.zoo.precision import full_precision
from genzoo.zoo.randomness import Generator, check_generator, uniform

CACHED = 2**20  # numbers, 4 MiB: what the caches hold of a layer, beside its weights and what it makes


def raster_order(shape: Sequence[int]) -> Tensor:
    """(D,): the flat indices of a datum's dimensions as they are read: row by row, in a pixel R, then G, then B."""
    index = torch.arange(math.prod(shape)).view(*shape)
    return (index.movedim(0, -1) if len(shape) == 3 else index).flatten()


class AutoregressiveMixin(ConditionalMixin, CompletionMixin, LogProbMixin):
    """Likelihood, samples, completions and anomaly scores of a model that states its `logits`.

    Works on codes, the integers 0 … levels − 1 behind the data (`modality.to_codes`). Conditional on a class where
    the constructor called `condition_on`.
    """

    log_prob_kind: LogProbKind = "exact"

    # from ZooModule
    shape: tuple[int, ...]
    levels: int | None
    modality: Modality
    like: Tensor
    observed: Callable[[Tensor], Tensor]
    standardised: Callable[[Tensor], Tensor]
    units_stated: dict[str, list[float]]
    in_own_units: Callable[[Tensor], Tensor]

    # ---- what a family states

    @abstractmethod
    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """The conditionals p(x_i | x_<i) of all dimensions at once.

        Args:
            codes: (B, *shape), int64 in [0, levels).
            labels: (B,) where the model is conditional, else None.

        Returns:
            (B, levels, *shape), of which [:, :, i] does not depend on codes[:, j] for any j from i on.
        """

    def parts(self) -> dict[str, Part]:
        """The logits of every dimension, from codes; of points from standardised ones."""
        label, codes = label_of(self), example(*self.shape)
        if self.levels is not None:
            codes = (codes.sigmoid() * self.levels).long()
        function = self.logits if label else lambda codes: self.logits(codes, None)
        return {"logits": Part(self, function, {"codes": codes, **label}, ("logits",), self.units_stated)}

    @property
    def order(self) -> Tensor:
        """(D,): the flat indices of the dimensions, first to last."""
        return raster_order(self.shape)

    def draw(self, codes: Tensor, known: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        """Fills in `codes` where not `known`, each dimension from p(x_i | x_<i), in order.

        Args:
            codes: (B, *shape), read only where `known`.
            known: (B, *shape), bool.
            labels: (B,) where the model is conditional, else None.
            noise: (B, *shape), uniform in [0, 1): what decides each draw, see `choose`.

        Returns:
            (B, *shape).
        """
        return self.draw_uncached(codes, known, labels, noise)

    def draw_uncached(self, codes: Tensor, known: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        """`draw` by its definition: the whole network for each dimension. The reference of the faster ways."""
        flat, known, noise = codes.masked_fill(~known, 0).flatten(1), known.flatten(1), noise.flatten(1)
        certain = known_to_all(known)
        for i in self.order.tolist():
            if not certain[i]:
                logits = self.logits(flat.view_as(codes), labels).flatten(2)[..., i]
                flat[:, i] = torch.where(known[:, i], flat[:, i], self.choose(logits, noise[:, i]))
        return flat.view_as(codes)

    def choose(self, logits: Tensor, noise: Tensor) -> Tensor:
        """One dimension's draw by the inverse of its distribution function.

        Args:
            logits: (B, levels).
            noise: (B,), uniform in [0, 1).

        Returns:
            (B,): the least code k with P(code ≤ k) > noise.
        """
        distribution = full_precision(logits).softmax(1).cumsum(1)
        sought = noise.unsqueeze(1) * distribution[:, -1:]  # rounding leaves a sum that is not quite 1
        return (distribution[:, :-1] <= sought).sum(1)

    # ---- likelihood

    @property
    def widest(self) -> int:
        """How many numbers the widest layer has for one datum, the logits included."""
        return math.prod(self.shape) * (self.levels or 1)

    @property
    def at_once(self) -> int:
        """How many data an evaluation on a CPU takes at a time, however many it is given.

        A layer of more does not fit into the caches, and memory of that size is fetched from the system and given
        back for every layer: of 256 images a PixelCNN's likelihood takes two and a half times as long each as of 16.
        """
        return max(1, CACHED // self.widest)

    def log_prob_per_dim(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B, *shape), nats: log p(x_i | x_<i) of each dimension, given the label where the model is conditional."""
        codes = self.codes(x)
        return -F.cross_entropy(full_precision(self.logits(codes, labels)), codes, reduction="none")

    def log_likelihood(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B,), nats: log p(x), or log p(x | y).

        Of a sound that ends before T it is Σ_t log p(x_t | x_<t) over its own samples, the marginal of all that could
        come after: what fills up a datum is no part of it.
        """
        terms = self.log_prob_per_dim(x, labels)
        return torch.where(self.observed(x), terms, 0.0).flatten(1).sum(1)

    @torch.no_grad()
    def log_prob(
        self,
        x: Tensor,
        *,
        labels: Tensor | None = None,
        num_particles: int = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """log p(x), exact: `num_particles` and `generator` change nothing.

        Args:
            x: (B, *shape).
            labels: (B,); with them log p(x | y), without them a conditional model's log Σ_y p(y) p(x | y).
            num_particles: as every `log_prob` has it.
            generator: as every `log_prob` has it.

        Returns:
            (B,), nats.
        """
        x = self.check(x)  # type: ignore[attr-defined]
        check_count("num_particles", num_particles)
        check_generator(generator)
        if labels is not None or self.num_classes is None:
            return self._few_at_once(self.log_likelihood, x, self.checked_labels(labels, len(x)))
        every = torch.arange(self.num_classes, device=x.device)
        given_class = torch.stack([self._few_at_once(self.log_likelihood, x, y.expand(len(x))) for y in every])
        return (given_class + self.class_log_prior[:, None]).logsumexp(0).to(given_class.dtype)

    def _few_at_once(
        self, evaluated: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, labels: Tensor | None
    ) -> Tensor:
        """What is evaluated of each datum and its label; on a CPU of `at_once` data or fewer at a time."""
        count = -(-len(x) // self.at_once) if x.device.type == "cpu" else 1
        return torch.cat([evaluated(*part) for part in portions(count, x, labels)])

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """−log p(x), or −log p(x | y) where the model is conditional."""
        if self.num_classes is None:
            labels = None  # the data may have them all the same
        return {"loss": -self.log_likelihood(x, self.checked_labels(labels, len(x)))}

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """nll = −log p(x); where the model is conditional, also conditional_nll = −log p(x | y)."""
        quantities = {"nll": -self.log_prob(x)}
        if self.num_classes is not None and labels is not None:
            quantities["conditional_nll"] = -self.log_prob(x, labels=labels)
        return quantities

    @torch.no_grad()
    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """How unlikely x is, for how complicated it is.

        Args:
            x: (B, *shape).
            scorer: "complexity" (the default for discrete data): −log p(x) minus the length of x's code under a
                universal compressor, zlib's (Serrà et al. 2020, eq. 3: the likelihood ratio to a model that knows no
                data; a blank image is likely under any model); "nll": −log p(x).

        Returns:
            (B,), nats, higher = odder.
        """
        x = self.check(x)  # type: ignore[attr-defined]
        scorer = ("nll" if self.levels is None else "complexity") if scorer is None else scorer
        nll = -self.log_prob(x)
        if scorer == "nll":
            return nll
        if scorer == "complexity" and self.levels is not None:
            return nll - compressed_nats(self.codes(x), self.levels, self.observed(x)).to(nll)
        raise ValueError(
            f"scorer={scorer!r}: a {type(self).__name__} of discrete data knows 'complexity' and 'nll', of continuous"
            " data 'nll'."
        )

    # ---- samples

    @torch.no_grad()
    def sample(self, num_samples: int, *, labels: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Ancestral samples: x_1, then x_2 given x_1, and so on.

        Args:
            num_samples: N.
            labels: (N,), where the model is conditional; without them they are drawn from p(y).
            generator: of the labels and the noise.

        Returns:
            (N, *shape), in the data's range and on its grid.
        """
        labels = self.labels_to_sample(labels, num_samples, self.like, generator)
        unknown = torch.zeros(num_samples, *self.shape, dtype=torch.bool, device=self.like.device)
        codes = unknown.long() if self.levels is not None else unknown.to(self.like.dtype)
        return self.data(self.draw(codes, unknown, labels, self.noise(unknown.shape, generator)))

    @torch.no_grad()
    def sample_path(
        self,
        num_samples: int,
        *,
        num_frames: int,
        labels: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """(num_frames, N, *shape): the first dimensions of `sample`'s sample, ever more of them; 0 elsewhere."""
        check_count("num_frames", num_frames)
        x = self.sample(num_samples, labels=labels, generator=generator)
        place = self.order.argsort().view(self.shape).to(x.device)
        counts = [round(x[0].numel() * (k + 1) / num_frames) for k in range(num_frames)]
        return torch.stack([x.masked_fill(place >= count, 0) for count in counts])

    @property
    def network_evaluations(self) -> int:
        """D: each dimension waits for the one before."""
        return math.prod(self.shape)

    # ---- completions

    def completion_kind(self, known: Tensor) -> Literal["exact", "approximate"]:
        """Whether `complete` draws from p(x_unknown | x_known).

        It does where nothing known comes after anything unknown (the lower half of an image, the end of a text).
        Otherwise each unknown dimension is drawn given what stands before it, and does not heed what is known later.
        """
        several = known.shape[: -len(self.shape)] if isinstance(known, Tensor) else ()
        in_order = broadcast(known, (*several, *self.shape)).flatten(-len(self.shape))[..., self.order]
        return "approximate" if bool((in_order[..., 1:] > in_order[..., :-1]).any()) else "exact"

    def fill_in(
        self,
        x: Tensor,
        known: Tensor,
        num_samples: int,
        generator: Generator | None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Unknown dimensions given all earlier ones, and the class.

        Where a conditional model is given no labels, the class is drawn given the known prefix. Exact or not as
        `completion_kind` says.
        """
        noise = self.noise((num_samples * len(x), *x.shape[1:]), generator)
        codes = self.codes(x)
        if labels is not None:
            labels = labels.repeat(num_samples)
        elif self.num_classes is not None:
            labels = self._classes_given_prefix(x, known, num_samples, generator).flatten()
        codes, known = (t.expand(num_samples, *x.shape).flatten(0, 1) for t in (codes, known))
        return self.data(self.draw(codes, known, labels, noise)).unflatten(0, (num_samples, len(x)))

    def _classes_given_prefix(
        self, x: Tensor, known: Tensor, num_samples: int, generator: Generator | None
    ) -> Tensor:
        """(num_samples, B), drawn from p(y | the known dimensions before the first unknown one)."""
        order = (self.order if x.shape[1:] == self.shape else raster_order(x.shape[1:])).to(
            x.device
        )  # of a text, any
        prefix = torch.zeros_like(known).flatten(1)
        prefix[:, order] = known.flatten(1)[:, order].cumprod(1).bool()
        every = torch.arange(self.num_classes or 0, device=x.device)
        per_dim = [self._few_at_once(self.log_prob_per_dim, x, y.expand(len(x))).flatten(1) for y in every]
        given_class = torch.stack([(terms * prefix).sum(1) for terms in per_dim], dim=1)
        posterior = (given_class + self.class_log_prior).to(given_class.dtype)
        noise = self.noise((num_samples * len(x),), generator).view(num_samples, len(x))
        return torch.stack([AutoregressiveMixin.choose(self, posterior, row) for row in noise])

    # ---- data and codes

    def codes(self, x: Tensor) -> Tensor:
        """The codes of data; continuous data are their own, points standardised."""
        return self.standardised(x) if self.levels is None else to_codes(x, self.levels, self.modality)

    def data(self, codes: Tensor) -> Tensor:
        """The data of codes, in the model's precision, but never in half of it."""
        if self.levels is None:
            return self.in_own_units(codes)
        data = from_codes(codes, self.levels, self.modality)
        return data.to(self.like.dtype) if data.is_floating_point() else data

    def noise(self, size: Sequence[int], generator: Generator | None) -> Tensor:
        """Uniform in [0, 1), never in half precision, which has too few values."""
        return uniform(size, like=self.like, generator=generator)


def compressed_nats(codes: Tensor, levels: int, observed: Tensor) -> Tensor:
    """(B,), nats: the length of each datum's codes where observed, in [0, levels), as compressed by zlib."""
    codes, observed = codes.to("cpu", torch.uint8 if levels <= 256 else torch.int32), observed.cpu()
    rows = [datum[kept].numpy() for datum, kept in zip(codes, observed, strict=True)]
    return torch.tensor([8 * math.log(2) * len(zlib.compress(row.tobytes(), 9)) for row in rows], dtype=torch.float64)
