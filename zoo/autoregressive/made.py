"""MADE, the masked autoencoder for distribution estimation (Germain et al. 2015).

A perceptron from x to the parameters of p(x_i | x_<i) for all i at once. Each unit has a degree: an input its place
i = 1 … D in the order, a hidden unit some number from 1 to D − 1, an output its i. A connection into a hidden unit of
degree m may come from degrees up to m, one into an output of degree i only from degrees below i (eqs. 12 and 13
there): so each path from x_j to the output i has j ≤ m_1 ≤ m_2 ≤ … < i.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.autoregressive.base import AutoregressiveMixin, raster_order
from genzoo.zoo.likelihoods import MIN_LOG_SCALE
from genzoo.zoo.memory import within_memory
from genzoo.zoo.module import ZooModule
from genzoo.zoo.networks.masked import MaskedLinear
from genzoo.zoo.precision import full_precision
from genzoo.zoo.randomness import choose_component


class MADE(AutoregressiveMixin, ZooModule):
    """A masked autoencoder for images, tokens and points.

    Capabilities: `sample`, `sample_path`, `log_prob` (exact), `anomaly_score`, `complete`.

    A discrete dimension is a softmax over its levels; a continuous one a mixture of normal distributions.

    Args:
        shape, levels, optimizer, lr_scheduler: as in `ZooModule`.
        width: hidden units of a layer; None takes D, at least 256. With fewer than D − 1 there is not a unit of each
            degree, and some dimensions do not see all earlier ones.
        depth: hidden layers.
        mixtures: normal distributions for each continuous dimension.
        dropout: of hidden units, while training.
        order_seed: draws the order of the dimensions at random; None keeps them as they are read, row by row.

    Raises:
        ValueError: on arguments out of range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        width: int | None = None,
        depth: int = 2,
        mixtures: int = 8,
        dropout: float = 0.0,
        order_seed: int | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        width = max(256, self.num_dims) if width is None else width
        if width < 1 or depth < 1 or mixtures < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"width={width}, depth={depth}, mixtures={mixtures}, dropout={dropout}: the first three are at least"
                " 1, dropout is in [0, 1)."
            )
        order = raster_order(self.shape)
        if order_seed is not None and self.modality == "waveform":
            raise ValueError("order_seed: sounds end, and what fills them up behind has to come last; leave it out.")
        if order_seed is not None:
            order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(order_seed))]
        self._order = order  # stays on the CPU, where a loop over it need not wait
        tokens = self.modality == "tokens"
        self.num_inputs = (levels or 1) if tokens else 1  # for each dimension: a token has no magnitude, so one-hot
        self.num_outputs = levels or 3 * mixtures
        other = {"image": "PixelCNN, whose size does not depend on that of the images", "tokens": "GPT"}
        self.network = within_memory(
            lambda: self._perceptron(width, depth, mixtures, dropout),
            f"{other.get(self.modality, 'fewer mixtures')}, or a smaller width than {width}",
        )

    def _perceptron(self, width: int, depth: int, mixtures: int, dropout: float) -> nn.Sequential:
        place = self._order.to(torch.get_default_device()).argsort() + 1  # 1 … D
        between = (torch.arange(width) * (self.num_dims - 1) // width + 1).clamp_max(max(1, self.num_dims - 1))
        degrees = [place.repeat_interleave(self.num_inputs)] + [between] * depth
        layers: list[nn.Module] = []
        for before, after in pairwise(degrees):
            layers += [MaskedLinear(after[:, None] >= before), nn.SiLU(), nn.Dropout(dropout)]
        outlet = MaskedLinear(place.repeat(self.num_outputs)[:, None] > degrees[-1])
        if self.levels is None:
            with torch.no_grad():  # components apart from one another, or they stay the same
                outlet.bias.view(3, mixtures, -1)[1] = torch.linspace(-1, 1, mixtures)[:, None]
        return nn.Sequential(*layers, outlet)

    @property
    def order(self) -> Tensor:
        """(D,): the flat indices of the dimensions, first to last."""
        return self._order

    @property
    def widest(self) -> int:
        """See `AutoregressiveMixin`."""
        return max(layer.out_features for layer in self.network if isinstance(layer, MaskedLinear))

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """(B, levels, *shape), as in `AutoregressiveMixin.logits`.

        For continuous data (B, 3 · mixtures, *shape): logits, means and log-scales of the components.
        """
        dtype = next(self.parameters()).dtype
        if self.num_inputs > 1:
            x = F.one_hot(codes, self.num_inputs).to(dtype)
        else:
            x = codes.to(dtype) if self.levels is None else 2 * codes.to(dtype) / (self.levels - 1) - 1
        return self.network(x.flatten(1)).view(x.shape[0], self.num_outputs, *self.shape)

    def log_prob_per_dim(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B, *shape), nats: log p(x_i | x_<i); for continuous data log Σ_k π_k N(x_i; μ_k, σ_k²)."""
        if self.levels is not None:
            return super().log_prob_per_dim(x, labels)
        y = self.codes(x)
        weight, mean, log_scale = self.components(self.logits(y, labels))
        z = (y.unsqueeze(1) - mean) * (-log_scale).exp()
        log_prob = (weight.log_softmax(1) - log_scale - 0.5 * z.square()).logsumexp(1) - 0.5 * math.log(2 * math.pi)
        return log_prob - self.units.log()

    def choose(self, logits: Tensor, noise: Tensor) -> Tensor:
        """A level, as in `AutoregressiveMixin.choose`; of continuous data a component, and a value from it."""
        if self.levels is not None:
            return super().choose(logits, noise)
        weight, mean, log_scale = self.components(logits)
        chosen, left = choose_component(weight, noise)
        mean, log_scale = (t.gather(1, chosen).squeeze(1) for t in (mean, log_scale))
        return mean + log_scale.exp() * torch.special.ndtri(left)

    def components(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and log-scales of the mixture, each (B, mixtures, ...)."""
        weight, mean, log_scale = full_precision(parameters).chunk(3, dim=1)
        return weight, mean, log_scale.clamp_min(MIN_LOG_SCALE)
