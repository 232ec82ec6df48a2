"""WaveNet: sound, one sample after another (van den Oord et al. 2016).

    p(x) = Π_t p(x_t | x_<t), each factor a softmax over the 256 mu-law codes of one sample.

A stack of causal convolutions with two taps looks back: layer l sees its input now and d_l samples ago, and with
dilations d = 1, 2, 4, … the view doubles with each layer while the cost only adds. Between the taps is a gate,

    z = tanh(W_f · [h_{t−d}, h_t] + V_f y) ⊙ σ(W_g · [h_{t−d}, h_t] + V_g y)                          (eq. 2 and 3)

for a class y, from which the layer adds W z to h, and to what the output is computed from.

To go on by one sample, layer l needs its input of d_l samples ago and nothing else: kept in a queue of d_l entries
(Le Paine et al. 2016, "Fast WaveNet"), a sample costs one column of the network instead of all T.
"""

from collections.abc import Iterable, Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.autoregressive.base import AutoregressiveMixin
from genzoo.zoo.memory import within_memory
from genzoo.zoo.mixins import ClassPrior, Conditional, known_to_all
from genzoo.zoo.module import ZooModule
from genzoo.zoo.networks.linear import Linear
from genzoo.zoo.precision import full_precision


class WaveNet(AutoregressiveMixin, ZooModule):
    """A WaveNet of mu-law codes.

    Capabilities: `sample`, `sample_path`, `log_prob` (exact), `anomaly_score`, `complete` (exactly, where the
    beginning of a sound is known).

    A sound shorter than T is followed by exact zeros, which no code stands for (`modality.sounding`): its loss and
    `log_prob` are the sum over its own samples, its `bits_per_dim` the mean over them. A sample and a completion have
    all T, and may end in silence.

    Args:
        shape: (1, T), of one sound: the most samples that it has.
        levels: how many mu-law codes a sample can have. Of an odd number one stands for 0, so that a zero is sound.
        num_classes: C, of the data's labels.
        conditional: model p(x | y) instead of p(x); "auto": if there are several classes.
        class_prior: p(y) where no label is given: the classes' shares in the "training" data, or "uniform" over
            those that they have.
        channels: of h.
        skip_channels: of what the output is computed from.
        dilations: of a cycle's layers, in samples.
        cycles: how often these layers are repeated. The model looks back cycles · Σ dilations + 1 samples.
        sample_rate: Hz, at which the sounds are to be played, where that is known; the model does not need it.
        optimizer, lr_scheduler: as in `ZooModule`.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    layers: Iterable["GatedLayer"]
    inlet: nn.Embedding
    skip: Linear

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        *,
        num_classes: int | None = None,
        conditional: Conditional = False,
        class_prior: ClassPrior = "training",
        channels: int = 64,
        skip_channels: int = 128,
        dilations: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        cycles: int = 1,
        sample_rate: int | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if self.modality != "waveform" or levels is None:
            raise ValueError(
                f"WaveNet models sounds, of shape (1, T) and with a number of levels, but was given shape={shape!r}"
                f" and levels={levels}: {self.modality}."
            )
        rate = 1 if sample_rate is None else sample_rate
        if min(channels, skip_channels, cycles, rate, *dilations) < 1 or not dilations:
            raise ValueError(
                f"channels={channels}, skip_channels={skip_channels}, dilations={list(dilations)}, cycles={cycles},"
                f" sample_rate={sample_rate}: each is at least 1."
            )
        self.condition_on(num_classes, conditional, class_prior)
        self.sample_rate = sample_rate
        self.start = levels  # a code of its own for what comes before the first sample
        depth = cycles * len(dilations)

        def networks() -> tuple[nn.Embedding, nn.ModuleList, Linear, nn.Module]:
            inlet = nn.Embedding(levels + 1, channels)
            layers = nn.ModuleList(
                GatedLayer(channels, d, self.num_classes, last=n == depth)
                for n, d in enumerate((d for _ in range(cycles) for d in dilations), start=1)
            )
            skip, then = Linear(depth * channels, skip_channels), Linear(skip_channels, skip_channels)
            return inlet, layers, skip, nn.Sequential(nn.ReLU(), then, nn.ReLU(), Linear(skip_channels, levels))

        less = f"fewer channels than {channels}, fewer skip_channels than {skip_channels}, or fewer cycles"
        self.inlet, self.layers, self.skip, self.outlet = within_memory(networks, less)  # type: ignore[assignment]

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """(B, levels, 1, T): what is computed at t has seen the codes up to t − 1."""
        h = self.inlet(F.pad(codes.flatten(1)[:, :-1], (1, 0), value=self.start))
        gated = []
        for layer in self.layers:
            bias = layer.bias_of(labels)
            h, z = layer(delayed(h, layer.dilation), h, None if bias is None else bias.unsqueeze(1))
            gated.append(z)
        return self.output(gated).movedim(-1, 1).unsqueeze(2)

    def log_prob_per_dim(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """As in every autoregressive model, but a sample's logits stay side by side in memory: five times as fast."""
        codes = self.codes(x)
        logits = full_precision(self.logits(codes, labels)).movedim(1, -1).flatten(0, -2)
        return -F.cross_entropy(logits, codes.flatten(), reduction="none").view_as(codes)

    @property
    def widest(self) -> int:
        """See `AutoregressiveMixin`."""
        return self.shape[1] * max(self.skip.out_features, self.inlet.embedding_dim * 2, self.start)

    def draw(self, codes: Tensor, known: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        """Sample after sample, by the layers' queues."""
        by_time = [t.flatten(1).T.contiguous() for t in (codes.masked_fill(~known, 0), known, noise)]
        nothing_to_draw = known_to_all(known.flatten(1))
        queues = Queues(self, len(codes), labels)
        before = torch.full_like(by_time[0][0], self.start)
        drawn = []
        for given, is_known, u, passes in zip(*by_time, nothing_to_draw, strict=True):
            gated = queues.step(before)
            before = given if passes else torch.where(is_known, given, self.choose(self.output(gated), u))
            drawn.append(before)
        return torch.stack(drawn, 1).view_as(codes)

    def output(self, gated: list[Tensor]) -> Tensor:
        """The logits (..., levels), from what comes out of the layers' gates."""
        return self.outlet(self.skip(torch.cat(gated, -1)))


class GatedLayer(nn.Module):
    """One causal convolution with two taps, its gate, and the way around it.

    Args:
        channels: of input and output.
        dilation: d, how many samples lie between the two taps.
        num_classes: C, or None where the model is not conditional.
        last: whether no layer follows; then h goes on as it is.
    """

    def __init__(self, channels: int, dilation: int, num_classes: int | None, last: bool) -> None:
        super().__init__()
        self.dilation = dilation
        self.taps = Linear(2 * channels, 2 * channels)
        self.bias = None if num_classes is None else nn.Embedding(num_classes, 2 * channels)
        self.residual = None if last else Linear(channels, channels)

    def forward(self, past: Tensor, now: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """The layer's output h and its gate's z, from its input d samples ago and now: (..., channels) all."""
        both = self.taps(torch.cat([past, now], -1))
        signal, gate = (both if bias is None else both + bias).chunk(2, -1)
        z = signal.tanh() * gate.sigmoid()
        return now if self.residual is None else now + self.residual(z), z

    def bias_of(self, labels: Tensor | None) -> Tensor | None:
        """V y, (B, 2 channels), for each class y of (B,); None where the model is not conditional."""
        return None if self.bias is None or labels is None else self.bias(labels)


def delayed(h: Tensor, dilation: int) -> Tensor:
    """h, (B, T, channels), as it was `dilation` samples ago: zero, before there was any."""
    d = min(dilation, h.shape[1])
    return F.pad(h, (0, 0, d, -d))


class Queues:
    """A WaveNet that goes on by one sample at a time: of each layer's input it keeps the last d columns.

    A queue is a ring, (d, B, channels): slot t mod d holds the input of time t − d, until that of t takes its place.

    Args:
        net: the model.
        batch_size: B, how many sounds it goes on with at once.
        labels: (B,) of a conditional model.
    """

    def __init__(self, net: WaveNet, batch_size: int, labels: Tensor | None) -> None:
        self.net, self.time = net, 0
        self.biases = [layer.bias_of(labels) for layer in net.layers]
        like = net.inlet.weight
        self.queues = [like.new_zeros(layer.dilation, batch_size, like.shape[1]) for layer in net.layers]

    def step(self, before: Tensor) -> list[Tensor]:
        """The layers' z, (B, channels) each, at the next time; `before`, (B,), is the code of the time before."""
        h, gated = self.net.inlet(before), []
        for layer, queue, bias in zip(self.net.layers, self.queues, self.biases, strict=True):
            slot = queue[self.time % layer.dilation]
            output, z = layer(slot, h, bias)
            slot.copy_(h)
            h = output
            gated.append(z)
        self.time += 1
        return gated
