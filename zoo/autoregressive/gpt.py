"""GPT: text, one token after another (Radford et al. 2018), a causal transformer.

    p(x) = Π_t p(x_t | x_<t),   p(x_t = k | x_<t) ∝ exp(e_k · h_t),   h = transformer(e_start, e_{x_1}, …, e_{x_T−1})

The tokens e_k that are read are also those that are told apart at the output (Press & Wolf 2017). A token of its own
stands before the first one, so that p(x_1) is modelled too, and log p(x) is that of the whole text. In training a
text begins anywhere, so "start" means that what came before is unknown, not that there was nothing.

To go on by one token, a layer needs the keys and values of those before and nothing else: kept in a cache, a token
costs one position of the network instead of all T.

A text of a class y (a picture's codes, say) begins with a token e_start of that class.

A text may have any length. Beyond T tokens it is read in windows of T, each T // 2 further on than the one before,
and every token counts once, in the first window that holds it: those of the first window are given everything that
stands before them, all later ones the last T − T // 2 tokens at least.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.autoregressive.base import AutoregressiveMixin
from genzoo.zoo.autoregressive.token_loss import token_nats
from genzoo.zoo.checks import check_count, check_number
from genzoo.zoo.memory import within_memory
from genzoo.zoo.mixins import ClassPrior, Conditional, known_to_all
from genzoo.zoo.modality import check_data
from genzoo.zoo.module import ZooModule
from genzoo.zoo.muon import Muon, matrix_groups
from genzoo.zoo.networks.linear import linear
from genzoo.zoo.networks.transformer import KeyValueCache, Transformer
from genzoo.zoo.randomness import Generator
from genzoo.zoo.texts import PADDING, TextMixin

Texts = Tensor | str | Sequence[str]
COLDEST = 1e-250  # a temperature by which no logit in single precision can be divided and stay finite: as good as 0


class GPT(TextMixin, AutoregressiveMixin, ZooModule):
    """A causal transformer over tokens.

    Capabilities: `sample` (with prompts, a temperature, top-k, top-p, and to any length), `sample_path`, `log_prob`
    (exact), `anomaly_score`, `complete` (exactly, where the beginning of a text is known); `text` and `tokens`.

    What is asked of texts, is asked of any length: (B, L) int64 tokens, of which those behind the end of a text are
    −1; or, with a vocabulary, strings.

    Args:
        shape: (T,), the most tokens that are seen at once; of one text in training, at most.
        levels: how many different tokens there are.
        vocabulary: what they stand for, as `genzoo.zoo.vocabulary` states it; None: the model knows numbers only.
        width: numbers at each position.
        depth: blocks.
        heads: of attention in each block.
        expansion: hidden units of a block's perceptron, as a multiple of `width`.
        dropout: of the embedding and of what each block adds, while training.
        num_classes: how many classes the labels name.
        conditional: whether to learn p(x | label); "auto": if there are several classes.
        class_prior: p(y) where no label is given: the classes' shares in the "training" data, or "uniform" over
            those that they have.
        optimizer, lr_scheduler: as in `ZooModule`.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    #: `surprisal(tokens, *, stride=None, batch_size=None)`: −log p of each token of a long text, (N,) to (N,), nats,
    #: in windows that are each `stride` further on. An attribute of the instance, for it is not there where the model
    #: is conditional: a long text has no class.
    surprisal: Callable[..., Tensor]

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        *,
        vocabulary: str | None = None,
        width: int = 128,
        depth: int = 4,
        heads: int = 2,
        expansion: int = 4,
        dropout: float = 0.0,
        num_classes: int | None = None,
        conditional: Conditional = False,
        class_prior: ClassPrior = "training",
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if self.modality != "tokens":
            raise ValueError(
                f"GPT models tokens, of shape (T,) and with a number of levels, but was given shape={shape!r} and"
                f" levels={levels}: {self.modality}."
            )
        self.read_by(vocabulary)
        self.condition_on(num_classes, conditional, class_prior)
        self.start = levels  # a token of its own for what comes before the first; of class y that of levels + y

        def networks() -> tuple[nn.Embedding, Transformer]:
            embedding = nn.Embedding(levels + (self.num_classes or 1), width)
            nn.init.normal_(embedding.weight, std=0.02)
            return embedding, Transformer(
                width, depth, heads, max_length=self.shape[0], expansion=expansion, dropout=dropout
            )

        instead = f"a smaller width than {width}, or a smaller depth than {depth}"
        self.embedding, self.transformer = within_memory(networks, instead)
        self.dropout = dropout
        if self.num_classes is None:
            self.surprisal = self._surprisal

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The matrices of the blocks, which `Muon` makes orthogonal steps in; then the embedding and the norms."""
        return matrix_groups(self, [self.transformer])

    def default_optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        """Muon, which learns text in half the steps that AdamW takes."""
        return Muon(parameters)

    # ---- the model

    def next_logits(self, tokens: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """What comes after each token: (B, t) of [0, levels], `start` included, to (B, t, levels)."""
        return self._logits_after(self.features(tokens, cache))

    def _logits_after(self, h: Tensor) -> Tensor:
        """What comes after places of these features: (…, width) to (…, levels)."""
        return linear(h, self.embedding.weight[: self.start])

    def features(self, tokens: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """h: (B, t) of [0, levels], `start` included, to (B, t, width)."""
        return self.transformer(F.dropout(self.embedding(tokens), self.dropout, self.training), cache)

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """See `AutoregressiveMixin`."""
        return self.next_logits(self.shifted(codes, labels)).transpose(1, 2)

    def log_prob_per_dim(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B, L), nats: log p(x_t | the tokens in view before it); behind the end of a text nothing that counts."""
        if x.shape[1] > self.shape[0]:
            return -self.in_windows(x, max(1, self.shape[0] // 2), self.at_once, labels)
        codes = self.codes(x)
        h = self.features(self.shifted(codes, labels)).flatten(0, 1)
        return -token_nats(h, self.embedding.weight[: self.start], codes.flatten()).view_as(x)

    def in_windows(self, x: Tensor, stride: int, batch_size: int, labels: Tensor | None = None) -> Tensor:
        """−log p of each token of (B, L), in the first window of T that holds it: (B, L), nats. See `surprisal`."""
        context, length = self.shape[0], x.shape[1]
        begins = range(0, max(1, length - context + stride), stride)
        windows = F.pad(x, (0, begins[-1] + context - length), value=PADDING).unfold(1, context, stride)
        parts = windows.flatten(0, 1).split(batch_size)
        classes: Sequence[Tensor | None] = [None] * len(parts)
        if labels is not None:
            classes = labels.repeat_interleave(len(begins)).split(batch_size)
        given = zip(parts, classes, strict=True)
        nats = torch.cat([-self.log_prob_per_dim(part, y) for part, y in given]).view(windows.shape)
        return torch.cat([nats[:, 0], nats[:, 1:, context - stride :].flatten(1)], 1)[:, :length]

    @torch.no_grad()
    def log_prob(
        self,
        x: Texts,
        *,
        labels: Tensor | None = None,
        num_particles: int = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """log p(x) of texts of any length: Σ_t log p(x_t | the tokens in view before it).

        Up to T tokens in view are all. Of a longer text the first T are given all that stands before them, and later
        ones at least T − T // 2 tokens: windows of T tokens follow at a stride of T // 2, and each token counts once,
        in the first that holds it.

        Args:
            x: (B, L) int64, −1 behind the end of a text; a string, or strings, where there is a vocabulary.
            labels: (B,); with them log p(x | y), without them a conditional model's log Σ_y p(y) p(x | y).
            num_particles: as every `log_prob` has it.
            generator: as every `log_prob` has it.

        Returns:
            (B,), nats of the whole text; divided by `num_observed(x)`, of a token.
        """
        return super().log_prob(x, labels=labels, num_particles=num_particles, generator=generator)  # type: ignore[arg-type]

    @torch.no_grad()
    def anomaly_score(self, x: Texts, *, scorer: str | None = None) -> Tensor:
        """As in `AutoregressiveMixin`, of texts of any length, as `log_prob` takes them: (B,), nats of the whole.

        Of texts of different lengths compare the score of a token, which is this divided by `num_observed(x)`.
        """
        return super().anomaly_score(self.check(x), scorer=scorer)

    def unpack(self, batch: Any, stage: str | None = None) -> tuple[Tensor, Tensor | None]:
        """As in `ZooModule`; a training takes texts of at most T tokens: of longer ones it would see but parts."""
        x, labels = super().unpack(batch, stage)
        if stage == "train" and x.shape[1] > self.shape[0]:
            raise ValueError(
                f"This GPT has shape={self.shape}, the tokens that it sees at once, but was to train on texts of"
                f" {x.shape[1]}: cut them into windows, as TextDataModule does."
            )
        return x, labels

    def check(self, x: Texts, *, on_grid: bool = True, in_range: bool = True) -> Tensor:
        """The batch as (B, L) tokens, −1 behind the end of each text, if it holds texts of this model.

        Args:
            x: (B, L) int64 of any length L; a string, or strings, where there is a vocabulary.
            on_grid: for the interface's sake.
            in_range: for the interface's sake.

        Raises:
            TypeError: if it is neither a tensor nor strings, or of the wrong kind of number.
            ValueError: for other tokens, no data at all, a text without a token, or padding that others follow.
        """
        if not isinstance(x, Tensor):
            try:
                x = self.tokens([x] if isinstance(x, str) else x).to(self.embedding.weight.device)
            except (TypeError, ValueError) as error:
                raise type(error)(f"x is no batch of a GPT: {error}") from None
        shape = tuple(x.shape[1:]) if x.ndim == 2 else self.shape
        observed = x != PADDING
        if x.dtype == torch.int64 and x.ndim == 2 and bool((observed[:, 1:] > observed[:, :-1]).any()):
            raise ValueError("x has padding (−1) within a text: it stands behind the end of one alone.")
        if x.dtype == torch.int64 and x.ndim == 2 and not (x.shape[1] and bool(observed[:, 0].all())):
            raise ValueError("x has a text without a token, of which there is nothing to say: leave it out.")
        check_data(torch.where(observed, x, 0) if x.dtype == torch.int64 else x, shape, self.levels, set(), "GPT")
        return x

    def observed(self, x: Tensor) -> Tensor:
        """Which of (B, L) are tokens of a text, and not behind its end; bool."""
        return x != PADDING

    def completion_kind(self, known: Tensor) -> Literal["exact", "approximate"]:
        """As in `AutoregressiveMixin`, of texts of any length."""
        if not isinstance(known, Tensor) or known.dtype != torch.bool or known.ndim == 0:
            return super().completion_kind(known)
        return "approximate" if bool((known[..., 1:] > known[..., :-1]).any()) else "exact"

    def num_observed(self, x: Texts) -> Tensor:
        """How many tokens each text has, (B,) int64."""
        return self.observed(x if isinstance(x, Tensor) else self.check(x)).sum(1)

    def codes(self, x: Tensor) -> Tensor:
        """Tokens are their own codes; behind the end of a text anything is, for what is there counts nowhere."""
        return x.clamp_min(0)

    @property
    def widest(self) -> int:
        """See `AutoregressiveMixin`."""
        return self.shape[0] * max(self.transformer.hidden, self.start)

    def shifted(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """The start, then all tokens but the last."""
        return self.begun(tokens[:, :-1], labels)

    def begun(self, tokens: Tensor, labels: Tensor | None) -> Tensor:
        """The start, which is the class's own where there are classes, and then the tokens."""
        begun = F.pad(tokens, (1, 0), value=self.start)
        if labels is not None:
            begun[:, 0] += labels
        return begun

    # ---- samples

    def draw(self, codes: Tensor, known: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        """See `AutoregressiveMixin`; with the cache."""
        return self.generate(codes, known, noise, labels)

    def generate(
        self,
        tokens: Tensor,
        known: Tensor,
        noise: Tensor,
        labels: Tensor | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Fills in a text of any length where not `known`, each token given those before it.

        At most T tokens are in view: those that `log_prob` gives each token, so that the distributions are the same.

        Args:
            tokens: (B, L), read only where `known`.
            known: (B, L), bool.
            noise: (B, L), uniform in [0, 1), decides each draw.
            labels: (B,) where the model is conditional, else None.
            temperature: see `truncated`.
            top_k: see `truncated`.
            top_p: see `truncated`.

        Returns:
            (B, L).
        """
        context, like = self.shape[0], self.embedding.weight
        unknown = [i for i, certain in enumerate(known_to_all(known)) if not certain]
        tokens = tokens.masked_fill(~known, 0)
        if not unknown:
            return tokens
        stride, begin = max(1, context // 2), -1
        for i in range(unknown[0], unknown[-1] + 1):
            window = max(0, -(-(i + 1 - context) // stride)) * stride  # the first with token i in it
            if window != begin:
                begin = window
                cache = KeyValueCache(self.transformer, len(tokens), like)
                fed = self.begun(tokens[:, begin:i], labels)
            else:
                fed = tokens[:, i - 1 : i]
            last = self.features(fed, cache)[:, -1]  # of all before it nobody asks what comes next
            logits = truncated(self._logits_after(last), temperature, top_k, top_p)
            tokens[:, i] = torch.where(known[:, i], tokens[:, i], self.choose(logits, noise[:, i]))
        return tokens

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        *,
        labels: Tensor | None = None,
        generator: Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prompt: str | Tensor | Sequence[int] | Sequence[str] | None = None,
        length: int | None = None,
    ) -> Tensor:
        """Texts, each token drawn given those before it.

        Args:
            num_samples: N.
            labels: (N,), where the model is conditional; without them they are drawn from p(y).
            generator: of the noise.
            temperature: what the logits are divided by; 0 always takes the likeliest token.
            top_k: draw from the k likeliest tokens only.
            top_p: draw from the fewest likeliest tokens only that together have this probability.
            prompt: how every text begins: (P,) tokens, or a string where the model has a vocabulary; or how each
                one does: N strings, of any lengths.
            length: of the texts, the prompt included; None is T, or beyond it the longest prompt's length and T.
                Beyond T tokens the view slides, see `generate`.

        Returns:
            (N, length), int64.

        Raises:
            ValueError: on arguments out of their range, or a prompt that is no shorter than `length`.
        """
        labels = self.labels_to_sample(labels, num_samples, self.embedding.weight, generator)
        given = self._prompts(prompt, num_samples).to(self.embedding.weight.device)
        longest = given.shape[1]
        if length is None:
            length = self.shape[0] + (longest if longest >= self.shape[0] else 0)
        check_count("length", length)
        if longest >= length:
            raise ValueError(f"The prompt has {longest} tokens: nothing is left to write of length={length}.")
        tokens = F.pad(given, (0, length - longest), value=PADDING)
        known = self.observed(tokens)
        noise = self.noise(tokens.shape, generator)
        return self.generate(tokens, known, noise, labels, temperature=temperature, top_k=top_k, top_p=top_p)

    # ---- long texts

    @torch.no_grad()
    def _surprisal(self, tokens: Tensor, *, stride: int | None = None, batch_size: int | None = None) -> Tensor:
        """How unexpected each token of a long text is: −log p(x_i | the tokens in view before it).

        The text is read in windows of T tokens, each `stride` further on, and a token counts in the first window that
        holds it: but for the first window's, it is seen with at least T − stride tokens before it.

        Args:
            tokens: (N,), int64, of any length.
            stride: from 1 to T; None is T // 2, as in `log_prob`. With T every window starts afresh.
            batch_size: windows at a time; None is as many as the caches hold.

        Returns:
            (N,), nats; the mean is the text's figure in nats per token.

        Raises:
            ValueError: if the tokens are none of the model's, or stride is out of range.
        """
        tokens = self.checked_tokens(tokens, "A long text is (N,) tokens").to(self.embedding.weight.device)
        batch_size = self.at_once if batch_size is None else batch_size
        check_count("batch_size", batch_size)
        stride = max(1, self.shape[0] // 2) if stride is None else stride
        check_count("stride", stride, most=self.shape[0])  # or windows would leave a gap
        return self.in_windows(tokens[None], stride, batch_size)[0]

    def _prompts(self, prompt: str | Tensor | Sequence[int] | Sequence[str] | None, num_samples: int) -> Tensor:
        """(N, P), −1 behind the end of a prompt that is shorter than others."""
        if isinstance(prompt, list | tuple) and any(isinstance(one, str) for one in prompt):
            if len(prompt) != num_samples:
                raise ValueError(
                    f"prompt: {len(prompt)} were given for num_samples={num_samples}: one for each text."
                )
            return self.tokens(prompt)  # which sees whether all are strings
        given = self.tokens(prompt) if isinstance(prompt, str) else () if prompt is None else prompt
        return self.checked_tokens(given, "A prompt is a text, or (P,) tokens").repeat(num_samples, 1)  # type: ignore[arg-type]


def truncated(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Logits of the likelier tokens at a temperature, −∞ for the others.

    First the temperature, then the k likeliest, then of those the fewest likeliest with probability ≥ p together
    (Holtzman et al. 2020). Ties go to the lower number, so exactly k are kept.

    Args:
        logits: (B, levels).
        temperature: ≥ 0; 0 keeps the likeliest alone.
        top_k: ≥ 1, or None for all.
        top_p: in (0, 1], or None for 1.

    Returns:
        (B, levels), float64.

    Raises:
        ValueError: on arguments out of their range.
    """
    check_number("temperature", temperature, "a finite number of at least 0")
    if top_k is not None:
        check_count("top_k", top_k)
    if top_p is not None:
        check_number("top_p", top_p, "a number in (0, 1]")
    if temperature < 0 or (top_p is not None and not 0 < top_p <= 1):
        raise ValueError(f"temperature={temperature}, top_p={top_p}: temperature is at least 0, top_p in (0, 1].")
    logits = logits.double()
    if temperature < COLDEST:
        temperature, top_k = 1.0, 1
    logits = logits / temperature
    if top_k is None and top_p is None:
        return logits
    ranked, order = logits.sort(dim=1, descending=True, stable=True)
    if top_k is not None:
        ranked[:, top_k:] = -torch.inf
    if top_p is not None:
        before = ranked.softmax(1).cumsum(1).roll(1, 1)  # the probability of those that are likelier
        before[:, 0] = 0
        ranked = ranked.masked_fill(before >= top_p, -torch.inf)
    return torch.empty_like(logits).scatter_(1, order, ranked)
