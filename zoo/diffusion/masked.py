"""Masked diffusion: absorbing-state diffusion of discrete data (Austin et al. 2021; MDLM, Sahoo et al. 2024; MD4, Shi
et al. 2024).

The corruption masks one entry after another, until all are. A network sees what is left and says what each masked
entry may be, p(x_i | x_visible). Its cross-entropies, weighted by the schedule, are a bound in continuous time
(Sahoo et al. 2024, eq. 10; Shi et al. 2024, eq. 5),

    log p(x) ≥ ∫₀¹ m′(t)/m(t) E_{M ~ m(t)} Σ_{i ∈ M} log p(x_i | x_{∖M}) dt,

with M the set of masked entries, each in it with probability m(t). The integral over all M of one size n is that of a
Beta distribution, whatever the schedule, ∫ m′/m · mⁿ (1 − m)^{D−n} dt = B(n, D − n + 1), so that

    log p(x) ≥ Σ_{n=1}^D  1/n  E_{|M| = n} Σ_{i ∈ M} log p(x_i | x_{∖M}).

That is the mean log-likelihood over the orders in which the entries can be filled in (Hoogeboom et al. 2022, eq. 4):
with the true conditionals each order gives log p(x), and so does the bound. Training draws a time t and masks n
entries where (n − 1)/D ≤ m(t) < n/D. A schedule says how often each n is trained, with P(n), and the weight
1/(n P(n)) makes up for it: in expectation the loss of every schedule is the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.checks import check_networks
from genzoo.zoo.diffusion.denoising import check_guidance
from genzoo.zoo.diffusion.marginal import MarginalBoundMixin
from genzoo.zoo.diffusion.masking import MaskingSchedule, mask_of, times_of_counts
from genzoo.zoo.diffusion.networks import checked_sizes
from genzoo.zoo.diffusion.unmasking import Unmasking, UnmaskingMixin
from genzoo.zoo.interface import LogProbKind
from genzoo.zoo.memory import within_memory
from genzoo.zoo.mixins import ClassPrior, Conditional
from genzoo.zoo.modality import from_codes, to_codes
from genzoo.zoo.module import ZooModule
from genzoo.zoo.muon import Muon, matrix_groups
from genzoo.zoo.networks.masked_dit import MaskedDiT
from genzoo.zoo.networks.masked_transformer import MaskedTransformer
from genzoo.zoo.parts import Part, example, label_of
from genzoo.zoo.precision import full_precision
from genzoo.zoo.randomness import Generator, PerDatum, uniform
from genzoo.zoo.texts import TextMixin

Name = Literal["transformer", "dit"]
OURS = MaskedTransformer | MaskedDiT

#: our networks, and the sizes that each of them takes
NETWORKS: Mapping[Name, tuple[type[OURS], set[str]]] = {
    "transformer": (MaskedTransformer, {"patch", "width", "depth", "heads", "dropout", "expansion"}),
    "dit": (MaskedDiT, {"patch", "width", "depth", "heads", "dropout", "checkpointing"}),
}
#: these mean nothing, rather than a mistake, beside a network of one's own: files that state them all are older
FORGIVEN = {"patch", "width", "depth", "heads", "expansion", "dropout"}


class MaskedDiffusion(TextMixin, UnmaskingMixin, MarginalBoundMixin, ZooModule):
    """Absorbing-state diffusion of tokens and of images with levels.

    Capabilities: `sample`, `sample_path`, `log_prob` (a lower bound), `anomaly_score`, `complete` (whatever is known,
    in any order); conditional on demand, with guidance; `text` and `tokens`, where there is a vocabulary.

    Args:
        shape: (T,) of tokens, or (C, H, W) of images.
        levels: how many values each entry can take.
        vocabulary: what tokens stand for, as `genzoo.zoo.vocabulary` states it; None: the model knows numbers only.
        schedule: of the masks in training, and of samplers that go by it: "linear", for which every number of masked
            entries is as likely as another, or "cosine", which trains more on nearly empty data.
        sampler: "first-hitting" fills in the entries in a random order, as many in each step; "ancestral" those that
            the schedule would; "confidence" those of which the network is surest (MaskGIT, Chang et al. 2022), which
            makes samples more typical, and less diverse, than the model's own distribution.
        steps: of the sampler. "first-hitting" with as many as there are entries draws from the model without bias.
        width: of the network, numbers at each position; None is 128, of a DiT what suits the data.
        depth: its blocks; None is 4, of a DiT what suits the data.
        heads: of attention in each block; None is 4, of a DiT what suits the width.
        expansion: hidden units of a block's perceptron, as a multiple of `width`; None is 4. A DiT has its own.
        dropout: of what each block adds, while training; of the transformer's embedding, too.
        patch: see `MaskedTransformer` and `MaskedDiT`.
        checkpointing: of a DiT, which see.
        network: "transformer", a `MaskedTransformer`, which None is, too; "dit", a `MaskedDiT`, which is told the
            class in every block; or a module of your own, (symbols, labels) to logits (B, levels, *shape), where
            symbols, (B, *shape) int64, are `levels` where masked, and labels are (B,) in [0, num_classes], the last
            for "no class", or None.
        num_classes: how many classes the labels name.
        conditional: whether to learn p(x | label); "auto": if there are several classes.
        class_prior: p(y) where no label is given: the classes' shares in the "training" data, or "uniform" over
            those that they have.
        label_dropout: the share of labels that training hides, for classifier-free guidance.
        guidance: of samples by default, see `logits`; a model without classes has none.
        optimizer, lr_scheduler: as in `ZooModule`.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    log_prob_kind: LogProbKind = "lower_bound"

    #: masks of each datum in the likelihood as a score
    anomaly_particles = 16

    times: Tensor
    weights: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        vocabulary: str | None = None,
        schedule: MaskingSchedule = "linear",
        sampler: Unmasking = "first-hitting",
        steps: int = 64,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        expansion: int | None = None,
        dropout: float = 0.0,
        patch: int | None = None,
        checkpointing: bool = False,
        network: Name | nn.Module | None = None,
        num_classes: int | None = None,
        conditional: Conditional = False,
        class_prior: ClassPrior = "training",
        label_dropout: float = 0.1,
        guidance: float = 1.0,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if self.modality not in ("tokens", "image") or self.levels is None:
            raise ValueError(
                f"MaskedDiffusion is for tokens (T,) and images (C, H, W) with a number of levels, but was given"
                f" shape={self.shape} and levels={levels}."
            )
        if schedule not in get_args(MaskingSchedule):
            raise ValueError(f"schedule={schedule!r}: choose 'linear' or 'cosine'.")
        if not 0 < label_dropout < 1:
            raise ValueError(f"label_dropout={label_dropout}: a share between 0 and 1.")
        if vocabulary is not None and self.modality != "tokens":
            raise ValueError(
                f"A vocabulary says what tokens stand for, but data of shape={self.shape} are no tokens."
            )
        self.read_by(vocabulary)
        self.condition_on(num_classes, conditional, class_prior)
        self.schedule, self.label_dropout = schedule, label_dropout
        check_guidance(guidance)
        self.guidance = guidance if self.num_classes is not None else 1.0
        self.sampler, self.steps = self._checked_sampler(sampler, steps)
        sizes = {
            "patch": patch,
            "width": width,
            "depth": depth,
            "heads": heads,
            "expansion": expansion,
            "dropout": dropout or None,
            "checkpointing": checkpointing or None,
        }
        self.network = network_of(network, self.shape, self.levels, self.num_classes, sizes)
        times = times_of_counts(schedule, self.num_dims)
        weights = 1 / (torch.arange(1, self.num_dims + 1) * times.diff())  # 1/(n P(n))
        self.register_buffer("times", times.float(), persistent=False)
        self.register_buffer("weights", weights.float(), persistent=False)

    def parameter_groups(self) -> list[Any]:
        """The matrices of our networks' hidden layers apart, for `Muon`; of a network of your own all alike."""
        if isinstance(self.network, OURS):
            return matrix_groups(self, self.network.hidden)
        return super().parameter_groups()

    def default_optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        """Muon for our networks; AdamW for one of your own."""
        return Muon(parameters) if isinstance(self.network, OURS) else super().default_optimizer(parameters)

    # ---- data, symbols and the network

    @property
    def mask(self) -> int:
        """The symbol of what is masked: the number of levels."""
        return self.levels or 0

    def codes(self, x: Tensor) -> Tensor:
        """(B, *shape) int64 in [0, levels), of data."""
        return to_codes(x, self.mask, self.modality)

    def data(self, codes: Tensor) -> Tensor:
        """The data of codes, in the model's precision, but never in half of it."""
        data = from_codes(codes, self.mask, self.modality)
        return data.to(self.like.dtype) if data.is_floating_point() else data

    def logits(self, symbols: Tensor, labels: Tensor | None, *, guidance: float = 1.0) -> Tensor:
        """What each entry may be, given those that are not masked.

        Args:
            symbols: (B, *shape), int64 in [0, levels], `levels` where masked.
            labels: (B,) int64 in [0, num_classes], num_classes for "no class"; None: no class for all.
            guidance: w in ℓ(no class) + w (ℓ(label) − ℓ(no class)), a distribution in proportion to
                p(x_i | y)^w p(x_i)^(1 − w) (Ho & Salimans 2021; Schiff et al. 2025, eq. 6). Both run in one batch.

        Returns:
            (B, levels, *shape), in float32 at least.
        """
        if labels is not None and guidance != 1.0:
            nothing = torch.full_like(labels, self.num_classes or 0)
            both = self.logits(symbols.repeat(2, *[1] * len(self.shape)), torch.cat([labels, nothing]))
            with_label, without = both.chunk(2)
            return without + guidance * (with_label - without)
        logits = self.network(symbols, labels)
        if logits.shape != (expected := (symbols.shape[0], self.mask, *self.shape)):
            raise ValueError(
                f"The network must map symbols of shape {tuple(symbols.shape)} to logits of shape {expected}, but"
                f" gave {tuple(logits.shape)}."
            )
        return full_precision(logits)

    def parts(self) -> dict[str, Part]:
        """The logits of every entry, from symbols, of which the mask's is stated beside."""
        label = label_of(self)
        symbols = (example(*self.shape).sigmoid() * (self.mask + 1)).long()
        function = self.logits if label else lambda symbols: self.logits(symbols, None)
        return {"logits": Part(self, function, {"symbols": symbols, **label}, ("logits",), {"mask": self.mask})}

    # ---- the bound

    def masked_nats(self, codes: Tensor, labels: Tensor | None, count: Tensor, noise: Tensor) -> Tensor:
        """−Σ_{i ∈ M} log p(x_i | x_{∖M}) for a set M of `count` entries, which the noise draws: (B,), nats."""
        masked = mask_of(noise.flatten(1), count).view_as(codes)
        logits = self.logits(codes.masked_fill(masked, self.mask), labels)
        nats = F.cross_entropy(logits, codes, reduction="none")
        return torch.where(masked, nats, 0.0).flatten(1).sum(1)

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """The bound's term at one time for each datum, times its weight: in expectation −(the bound), in nats.

        The times of a batch are spread evenly (Kingma et al. 2021).
        """
        first = uniform((), like=self.like)
        t = (first + torch.arange(len(x), device=x.device) / len(x)) % 1
        count = torch.searchsorted(self.times, t.to(self.times), right=True).clamp(1, self.num_dims)
        given = self.checked_labels(labels, len(x)) if self.num_classes is not None else None
        if given is not None:
            hidden = uniform((len(x),), like=self.like) < self.label_dropout
            given = torch.where(hidden, self.num_classes, given)  # type: ignore[arg-type]
        nats = self.masked_nats(self.codes(x), given, count, uniform(x.shape, like=self.like))
        return {"loss": self.weights[count - 1] * nats}

    def log_prob_given(
        self, x: Tensor, labels: Tensor | None, num_particles: int, generator: Generator | None
    ) -> Tensor:
        """(B,) float64, an unbiased estimate of the bound from so many masks of each datum.

        Every number of masked entries is as likely as another, and the particles' numbers are spread evenly: that
        varies less than times of a schedule do.
        """
        codes, labels = self.codes(x), None if labels is None else labels.clone()  # they may come from inference mode
        first = uniform((len(x),), like=self.like, generator=generator)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for k in range(num_particles):
            count = 1 + ((first + k / num_particles) % 1 * self.num_dims).long().clamp_max(self.num_dims - 1)
            noise = uniform(x.shape, like=self.like, generator=generator)
            total -= self.masked_nats(codes, labels, count, noise) * (self.num_dims / count)
        return total / num_particles

    @property
    def log_prob_protocol(self) -> str:
        """How `log_prob` is found, as a part of a sentence."""
        return "one random mask for each particle, of any size as likely as another"

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """From one mask for each datum "nll", or "conditional_nll", −log p(x | y)."""
        name, given = ("nll", None)
        if self.num_classes is not None:
            name, given = "conditional_nll", self.checked_labels(labels, len(x))
        return {name: -self.log_prob_given(x, given, 1, generator).to(self.like.dtype)}

    @torch.no_grad()
    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """−log p(x), by the bound.

        Args:
            x: (B, *shape).
            scorer: "nll", which is the default.

        Returns:
            (B,), nats, higher = odder.
        """
        x = self.check(x)
        if scorer not in (None, "nll"):
            raise ValueError(f"scorer={scorer!r}: {type(self).__name__} knows 'nll'.")
        return -self.log_prob(x, num_particles=self.anomaly_particles, generator=PerDatum(x))


def network_of(
    network: Name | nn.Module | None,
    shape: Sequence[int],
    levels: int,
    num_classes: int | None,
    sizes: Mapping[str, Any],
) -> nn.Module:
    """One's own network, or one of ours, in the sizes that are stated.

    Args:
        network: one's own, one of ours by name, or None for the transformer.
        shape: of one datum.
        levels: how many values an entry can take.
        num_classes: how many classes it is told of; None: of none.
        sizes: any of those in `NETWORKS`; None is one that was not given.

    Raises:
        TypeError: if the network is nothing of these.
        ValueError: if there is no such network, it has no such sizes, or there is no memory for it.
    """
    name = "transformer" if network is None else network
    if not isinstance(name, str):
        check_networks(network=name)
        checked_sizes(name, sizes, set(), FORGIVEN)
        return name
    if name not in NETWORKS:
        raise ValueError(f"network={name!r}: choose 'transformer' or 'dit', or give a module of your own.")
    ours, taken = NETWORKS[name]
    make = partial(ours, shape, levels, num_classes=num_classes, **checked_sizes(name, sizes, taken, set()))
    return within_memory(make, "a smaller width or depth")
