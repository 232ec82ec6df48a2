"""The gated PixelCNN (van den Oord et al. 2016, "Conditional image generation with PixelCNN decoders").

    p(x) = Π_i p(x_i | x_<i),

over the pixels in raster order, in each pixel over R, then G, then B. Of few levels each factor is any distribution
over them, a softmax. Of many, a pixel is a mixture of discretised logistic distributions whose own equation couples
R, G and B (`logistic_mixture`; Salimans et al. 2017): then the network need not keep the colours apart, and to go
through it once is enough for a pixel.

A single causal convolution applied again and again has a blind spot, earlier pixels to the right that no layer ever
sees. So there are two stacks (figure 1 there): the vertical one sees all rows above, the horizontal one the pixels to
the left in the same row, and in each layer the first tells the second what it saw.

The gate is here W_c∗h ⊙ σ(W_g∗h), without the paper's tanh, and both stacks have residual connections (as in
PixelCNN++, Salimans et al. 2017); the vertical one, which only informs the other, has a plain activation. A learned
vector for each row and each column tells a pixel where it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.autoregressive.base import AutoregressiveMixin
from genzoo.zoo.logistic_mixture import LogisticMixture, LogisticMixtureOutput, draw_conditional
from genzoo.zoo.memory import within_memory
from genzoo.zoo.mixins import ClassPrior, Conditional, known_to_all
from genzoo.zoo.modality import from_codes, to_codes
from genzoo.zoo.module import ZooModule
from genzoo.zoo.networks.masked import MaskedConv2d, channel_mask

INLET_REACH = 3  # how far the first convolutions see: up, left and right
MANY_LEVELS = 64  # from so many on they are a scale rather than so many different things

Distribution = Literal["softmax", "logistic_mixture"]


class PixelCNN(AutoregressiveMixin, ZooModule):
    """A gated PixelCNN for images with any number of levels and channels.

    Capabilities: `sample`, `sample_path`, `log_prob` (exact), `anomaly_score`, `complete`; conditional on demand.

    Args:
        shape: (C, H, W).
        levels: how many values each dimension can take.
        distribution: of a pixel, "softmax" over the levels of each channel given those before it, or
            "logistic_mixture", whose channels are coupled; None takes the mixture from 64 levels on.
        mixtures: how many components it has.
        channels: of the features.
        depth: layers, each a vertical and a horizontal gated convolution.
        kernel_size: of the layers, odd: a vertical convolution is (k + 1)/2 rows by k columns, a horizontal one
            (k + 1)/2 pixels.
        dilations: of the layers, repeated from the first when there are more layers.
        num_classes: how many classes the data have.
        conditional: whether to model p(x | y) of the class y rather than p(x); "auto": if there are several classes.
        class_prior: p(y) where no label is given: the classes' shares in the "training" data, or "uniform" over
            those that they have.
        optimizer, lr_scheduler: as in `ZooModule`.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    former_arguments: ClassVar[Mapping[str, Any]] = {"distribution": "softmax"}

    layers: Sequence["GatedLayer"]
    features: MaskedConv2d
    outlet: MaskedConv2d

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        distribution: Distribution | None = None,
        mixtures: int = 10,
        channels: int = 32,
        depth: int = 6,
        kernel_size: int = 3,
        dilations: Sequence[int] = (1, 2, 4),
        num_classes: int | None = None,
        conditional: Conditional = False,
        class_prior: ClassPrior = "training",
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if len(self.shape) != 3 or levels is None:
            raise ValueError(
                f"shape={self.shape}, levels={levels}: a PixelCNN is for images (C, H, W) with discrete values."
            )
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: choose an odd size from 3 on.")
        if depth < 1 or not dilations or min(dilations) < 1:
            raise ValueError(f"depth={depth}, dilations={list(dilations)}: all must be at least 1.")
        if distribution is None:
            distribution = "logistic_mixture" if levels >= MANY_LEVELS else "softmax"
        if distribution not in get_args(Distribution):
            raise ValueError(f"distribution={distribution!r}: choose 'softmax' or 'logistic_mixture'.")
        self.condition_on(num_classes, conditional, class_prior)
        colours, height, width = self.shape
        #: of all channels of a pixel; None: a softmax for each
        self.mixture = LogisticMixture(mixtures) if distribution == "logistic_mixture" else None
        #: how many parts of a pixel's features see only themselves and those before, and how many passes it takes
        self.turns = colours if self.mixture is None else 1
        if channels < self.turns:
            raise ValueError(f"channels={channels}: each of the image's {colours} channels takes at least one.")
        outputs = colours * levels if self.mixture is None else self.mixture.parameter_shape(self.shape, levels)[0]
        self.above = nn.Conv2d(colours, channels, (INLET_REACH, 2 * INLET_REACH + 1))
        self.left = horizontal_conv(colours, channels, INLET_REACH + 1, self.turns, strict=True)
        self.row = nn.Parameter(0.1 * torch.randn(channels, height, 1))
        self.column = nn.Parameter(0.1 * torch.randn(channels, 1, width))
        self.class_ = nn.Embedding(self.num_classes, channels) if self.num_classes else None

        def stack() -> tuple[nn.ModuleList, MaskedConv2d, MaskedConv2d]:
            return (
                nn.ModuleList(
                    GatedLayer(channels, self.turns, kernel_size, dilations[i % len(dilations)]) for i in range(depth)
                ),
                horizontal_conv(channels, channels, 1, self.turns),
                horizontal_conv(channels, outputs, 1, self.turns),
            )

        less = f"fewer channels than {channels}, or a smaller depth than {depth}"
        self.layers, self.features, self.outlet = within_memory(stack, less)  # type: ignore[assignment]
        self.to(memory_format=torch.channels_last)  # several times faster in bfloat16, on a CPU and on a GPU

    # ---- the whole image at once

    def outputs(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """What the network says of each pixel: (B, N, H, W)."""
        x = self.scaled(codes).to(self.row.dtype)
        v = self.above(F.pad(x[:, :, :-1], (INLET_REACH, INLET_REACH, INLET_REACH, 0)))
        v = v + self.place(labels).to(v.dtype)  # under autocast the stacks stay in half precision
        h = self.left(F.pad(x, (INLET_REACH, 0, 0, 0))) + v
        for layer in self.layers:
            v = layer.vertical(F.pad(v, (0, 0, layer.reach, 0)), v)
            h = layer.told(v).add_(h)
            h = layer.horizontal(F.pad(h, (layer.reach, 0, 0, 0)), h)
        return self.outlet(F.silu(self.features(F.silu(h))))

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """As in `AutoregressiveMixin`, (B, levels, C, H, W); of mixtures (B, 3 · mixtures, C, H, W), see `choose`."""
        outputs = self.outputs(codes, labels)
        if self.mixture is None:
            return outputs.unflatten(1, (self.shape[0], -1)).transpose(1, 2)
        return self.stated(outputs).conditionals(self.scaled(codes))

    def stated(self, outputs: Tensor) -> LogisticMixtureOutput:
        """The mixtures that outputs of the network, (B, N, H, W), stand for."""
        assert self.mixture is not None
        return self.mixture.output(outputs, self.levels)

    def log_prob_per_dim(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B, C, H, W), nats: log p(x_i | x_<i)."""
        if self.mixture is None:
            return super().log_prob_per_dim(x, labels)
        return self.stated(self.outputs(self.codes(x), labels)).log_prob_per_dim(x)

    def choose(self, logits: Tensor, noise: Tensor) -> Tensor:
        """One dimension's draw, as in `AutoregressiveMixin`; of mixtures as in `draw_conditional`."""
        if self.mixture is None or self.levels is None:
            return super().choose(logits, noise)
        return to_codes(draw_conditional(logits.chunk(3, 1), noise, self.levels), self.levels)

    @property
    def widest(self) -> int:
        """See `AutoregressiveMixin`."""
        return self.shape[1] * self.shape[2] * max(self.features.out_channels, self.outlet.out_channels)

    def scaled(self, codes: Tensor) -> Tensor:
        """The codes 0 … levels − 1 in [−1, 1]."""
        return 2 * codes.to(self.like.dtype) / ((self.levels or 2) - 1) - 1

    def place(self, labels: Tensor | None) -> Tensor:
        """What a pixel knows before it sees anything: its row, its column, its class; (1 or B, channels, H, W)."""
        place = (self.row + self.column).unsqueeze(0)
        return place if self.class_ is None or labels is None else place + self.class_(labels)[:, :, None, None]

    # ---- one pixel after another

    def draw(self, codes: Tensor, known: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        """What `draw_uncached` gives, in a fraction of the time: nothing is computed twice.

        The vertical stack runs once a row, on the rows that its convolutions reach; the horizontal stack on single
        pixels, as matrix products, and not in rows that are known throughout: once for each dimension, or where a
        mixture states all channels, once for each pixel.
        """
        codes, certain = codes.masked_fill(~known, 0), known_to_all(known)
        place = self.place(labels)
        x = self.scaled(codes).to(place)
        image = F.pad(x, (INLET_REACH, INLET_REACH, INLET_REACH, 0))  # row i at INLET_REACH + i
        above = [place.new_zeros(len(codes), len(self.row), layer.reach, self.shape[2]) for layer in self.layers]
        pixels = PixelPass(self)
        for i in range(self.shape[1]):
            inlet = v = self.above(image[:, :, i : i + INLET_REACH]) + place[:, :, i : i + 1]
            told = []
            for n, layer in enumerate(self.layers):
                window = torch.cat([above[n], v], 2)
                v = layer.vertical(window, v)
                above[n] = window[:, :, 1:]
                told.append(pixelwise(layer.told(v)))
            row = [colour[i] for colour in certain]
            if not all(map(all, row)):
                codes[:, :, i] = pixels.draw_row(
                    codes[:, :, i], known[:, :, i], row, noise[:, :, i], pixelwise(inlet), told
                )
            image[:, :, INLET_REACH + i, INLET_REACH:-INLET_REACH] = self.scaled(codes[:, :, i])
        return codes

    def draw_turn(self, turn: int, outputs: Tensor, codes: Tensor, known: Tensor, noise: Tensor) -> Tensor:
        """What of a pixel one pass of the network decides: one channel, by a softmax, or all, by a mixture.

        Args:
            turn: which of the `turns`.
            outputs: (B, N), of the network.
            codes: (B, C or 1), read only where known.
            known: of the same shape, bool.
            noise: of the same shape.

        Returns:
            The codes, of the same shape.
        """
        if self.mixture is None or self.levels is None:
            drawn = self.choose(outputs.unflatten(1, (self.turns, -1))[:, turn], noise[:, 0])
            return torch.where(known, codes, drawn.unsqueeze(1))
        pixel = (t[..., None, None] for t in (from_codes(codes, self.levels), known, noise))
        return to_codes(self.stated(outputs[..., None, None]).fill_in(*pixel), self.levels)[..., 0, 0]

    @property
    def network_evaluations(self) -> int:
        """How many dimensions, or pixels, wait for the one before."""
        return self.turns * self.shape[1] * self.shape[2]


class GatedLayer(nn.Module):
    """One layer of the vertical and of the horizontal stack.

    Both take a window that holds, besides the places to be computed, all that the convolution reaches: the whole
    padded image, or a few rows of it, or a few pixels.

    Args:
        channels: of either stack's features.
        turns: into how many parts the features fall: one sees, in the same pixel, itself and those before it.
        kernel_size: k.
        dilation: distance of the kernel's taps.
    """

    def __init__(self, channels: int, turns: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        taps = (kernel_size + 1) // 2
        self.dilation, self.reach = dilation, dilation * (taps - 1)  # upwards, and to either side
        self.above = nn.Conv2d(channels, channels, (taps, kernel_size), dilation=dilation, padding=(0, self.reach))
        self.told = nn.Conv2d(channels, channels, 1)
        self.content = horizontal_conv(channels, channels, taps, turns, dilation=dilation)
        self.gate = horizontal_conv(channels, channels, taps, turns, dilation=dilation)
        self.outlet = horizontal_conv(channels, channels, 1, turns)

    def vertical(self, window: Tensor, v: Tensor) -> Tensor:
        """The next v: (B, channels, rows + reach, W), (B, channels, rows, W) to the latter."""
        return F.silu(self.above(window)).add_(v)

    def horizontal(self, window: Tensor, h: Tensor) -> Tensor:
        """The next h: (B, channels, H, W + reach), (B, channels, H, W) to the latter, both told the next v."""
        return self.outlet(self.content(window) * self.gate(window).sigmoid()).add_(h)


class PixelPass:
    """The horizontal stack of a PixelCNN, one pixel after another, on matrices made of its convolutions once.

    Args:
        model: whose weights do not change meanwhile.
    """

    def __init__(self, model: PixelCNN) -> None:
        self.model = model
        self.left, self.features, self.outlet = (as_linear(c) for c in (model.left, model.features, model.outlet))
        self.layers = [(as_linear(layer.content, layer.gate), as_linear(layer.outlet)) for layer in model.layers]

    def draw_row(
        self,
        codes: Tensor,
        known: Tensor,
        certain: list[list[bool]],
        noise: Tensor,
        inlet: Tensor,
        told: list[Tensor],
    ) -> Tensor:
        """One row of `PixelCNN.draw`.

        Args:
            codes: (B, C, W), of the row.
            known: (B, C, W).
            certain: (C, W), what of it is known in every datum.
            noise: (B, C, W).
            inlet: (W, B, channels), what the vertical stack begins with in this row.
            told: for each layer (W, B, channels), what it tells the horizontal stack there.

        Returns:
            (B, C, W).
        """
        model, codes, (batch, colours, width) = self.model, codes.clone(), codes.shape
        x = inlet.new_zeros(batch, INLET_REACH + width, colours)  # pixel j at INLET_REACH + j, and so below
        x[:, INLET_REACH:] = model.scaled(codes).transpose(1, 2)
        seen = [inlet.new_zeros(batch, layer.reach + width, inlet.shape[2]) for layer in model.layers]
        for j in range(width):
            for turn in range(model.turns):
                its = slice(turn, turn + 1) if model.turns > 1 else slice(colours)
                decided = all(colour[j] for colour in certain[its])
                if decided and turn < model.turns - 1:  # the last one's pass completes what later pixels will see
                    continue
                h = F.linear(x[:, j : j + INLET_REACH + 1].flatten(1), *self.left) + inlet[j]
                for n, layer in enumerate(model.layers):
                    content_and_gate, outlet = self.layers[n]
                    h = h + told[n][j]
                    seen[n][:, j + layer.reach] = h
                    window = seen[n][:, j : j + layer.reach + 1 : layer.dilation].flatten(1)
                    h = h + F.linear(F.glu(F.linear(window, *content_and_gate)), *outlet)
                if not decided:
                    outputs = F.linear(F.silu(F.linear(F.silu(h), *self.features)), *self.outlet)
                    pixel = (t[:, its, j] for t in (codes, known, noise))
                    codes[:, its, j] = model.draw_turn(turn, outputs, *pixel)
                    x[:, INLET_REACH + j, its] = model.scaled(codes[:, its, j]).to(x)
        return codes


def horizontal_conv(
    in_channels: int, out_channels: int, taps: int, turns: int, *, strict: bool = False, dilation: int = 1
) -> MaskedConv2d:
    """A convolution over a pixel and those to its left, where in the pixel itself no part sees a later one.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        taps: how many pixels, the pixel itself the last.
        turns: into how many parts input and output fall, those of R, G and B or one for all.
        strict: whether a part does not see itself either, as in the first layer, whose input is the image.
        dilation: distance of the pixels.
    """
    mask = None
    if strict or turns > 1:
        mask = torch.ones(out_channels, in_channels, 1, taps, dtype=torch.bool)
        mask[..., -1] = channel_mask(out_channels, in_channels, turns, strict=strict).unsqueeze(-1)
    return MaskedConv2d(in_channels, out_channels, (1, taps), mask, dilation=dilation)


def as_linear(*convs: MaskedConv2d) -> tuple[Tensor, Tensor]:
    """The weight and bias that do to (B, taps · in_channels) what convolutions do to pixels; outputs side by side."""
    weight = torch.cat([conv.masked_weight() for conv in convs]).squeeze(2)
    return weight.transpose(1, 2).flatten(1).contiguous(), torch.cat(
        [conv.bias for conv in convs if conv.bias is not None]
    )


def pixelwise(row: Tensor) -> Tensor:
    """(B, channels, 1, W) to (W, B, channels)."""
    return row.squeeze(2).permute(2, 0, 1).contiguous()
