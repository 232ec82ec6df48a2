"""The discretised logistic mixture of whole pixels (Salimans et al. 2017, "PixelCNN++", section 2.1 and 2.2).

A pixel y = (y_1 … y_C) in [−1, 1]^C, R, G and B, has one component i for all its channels, and in a component each
channel is a logistic distribution whose location depends linearly on the channels before it,

    p(y) = Σ_i π_i Π_c P(y_c | location μ_ic + Σ_{j<c} a_icj y_j, scale s_ic),

P being the mass of y_c's bin (`likelihoods.log_bin_mass`). Ten numbers for each component, of three channels, state
what softmaxes over 256 levels take 768 for; levels side by side have much the same probability from the start, and
colour is coupled exactly: the mass sums to one over the levels^C values of a pixel.

What a channel is, given those before it, is a mixture again, of the same components in other proportions: those
that the earlier channels make likely,

    p(y_c | y_<c) = Σ_i w_ic P(y_c | …),   w_ic ∝ π_i Π_{j<c} P(y_j | y_<j, i).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.zoo.likelihoods import MIN_LOG_SCALE, Likelihood, Output, log_bin_mass
from genzoo.zoo.modality import to_grid
from genzoo.zoo.precision import full_precision
from genzoo.zoo.randomness import Generator, choose_component, uniform


@dataclass(frozen=True)
class LogisticMixture(Likelihood):
    """A mixture of logistic distributions for each pixel of an image, its channels coupled.

    Args:
        mixtures: K, how many components, at least 1.
    """

    mixtures: int = 10

    def __post_init__(self) -> None:
        if self.mixtures < 1:
            raise ValueError(f"mixtures={self.mixtures}: a LogisticMixture needs at least one component.")

    def num_parameters(self, levels: int | None) -> int:
        """3K, for a pixel of one channel; of those with more, `parameter_shape` tells.

        Raises:
            ValueError: for continuous data.
        """
        if levels is None or levels < 2:
            raise ValueError(f"LogisticMixture describes discrete data, but the data have levels={levels}.")
        return 3 * self.mixtures

    def parameter_shape(self, shape: Sequence[int], levels: int | None) -> tuple[int, ...]:
        """(N, H, W): for each component a logit, C locations, C log-scales, and C (C − 1)/2 coefficients.

        Raises:
            ValueError: for anything but images with levels.
        """
        self.num_parameters(levels)
        if len(shape) != 3:
            raise ValueError(f"LogisticMixture describes the pixels of images (C, H, W), but shape={tuple(shape)}.")
        return sum(self.sizes(shape[0])), shape[1], shape[2]

    def sizes(self, channels: int) -> list[int]:
        """How many logits, locations, log-scales and coefficients a pixel has, in this order."""
        k = self.mixtures
        return [k, k * channels, k * channels, k * channels * (channels - 1) // 2]

    def output(self, parameters: Tensor, levels: int | None) -> "LogisticMixtureOutput":
        """From parameters (B, N, H, W), as `parameter_shape` counts them."""
        assert levels is not None
        channels = 1
        while sum(self.sizes(channels)) < parameters.shape[1]:
            channels += 1
        parts = full_precision(parameters).contiguous().split(self.sizes(channels), 1)  # a third faster
        return LogisticMixtureOutput([part.unflatten(1, (self.mixtures, -1)) for part in parts], levels)


class LogisticMixtureOutput(Output):
    """Independent pixels of coupled channels, in the units of data scaled to [−1, 1].

    Args:
        parameters: logits of the components, (B, K, 1, H, W); locations of the channels, as they are where those
            before are 0, and log-scales, both (B, K, C, H, W); coefficients, (B, K, C (C − 1)/2, H, W), of the pairs
            of channels (1, 0), (2, 0), (2, 1), …, of which the tanh counts.
        levels: of the data.
    """

    event_dims = 3
    coupled = True

    def __init__(self, parameters: Sequence[Tensor], levels: int) -> None:
        logits, self.location, log_scale, coefficients = parameters
        self.log_weight, self.levels = logits.squeeze(2).log_softmax(1), levels
        self.log_scale, self.coefficients = log_scale.clamp_min(MIN_LOG_SCALE), coefficients.tanh()

    def location_given(self, c: int, before: Sequence[Tensor]) -> Tensor:
        """(B, K, H, W): the location of channel c, given those before it, each broadcastable to that."""
        pair = c * (c - 1) // 2  # of c and channel 0
        return self.location[:, :, c] + sum(self.coefficients[:, :, pair + j] * before[j] for j in range(c))

    def conditionals(self, y: Tensor) -> Tensor:
        """p(y_c | y_<c) of each channel, as a mixture of its own.

        Args:
            y: (B, C, H, W), in [−1, 1].

        Returns:
            (B, 3K, C, H, W), logits, locations and log-scales; [:, :, c] does not depend on y[:, j] for any j from
            c on.
        """
        logits, locations = self._chain(y)
        return torch.cat([logits[:, :, :-1], locations, self.log_scale], 1)

    def log_prob_per_dim(self, x: Tensor) -> Tensor:
        """(B, C, H, W), nats: log p(y_c | y_<c). The sum over the channels is the log-probability of the pixel."""
        logits, _ = self._chain(2 * x - 1)
        return logits.logsumexp(1).diff(dim=1)

    def log_prob(self, x: Tensor) -> Tensor:
        """(B,), nats: of that sum only the last term is left, log Σ_i π_i Π_c P(y_c | y_<c, i)."""
        logits, _ = self._chain(2 * x - 1)
        return logits[:, :, -1].logsumexp(1).flatten(1).sum(1)

    def _chain(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """log [π_i Π_{j<c} P(y_j | y_<j, i)] for c = 0 … C, (B, K, C + 1, H, W), and the locations given y_<c."""
        before = y.unsqueeze(2).unbind(1)
        log_weight = self.log_weight.expand(max(len(y), len(self.log_weight)), *self.log_weight.shape[1:])
        logits, locations = [log_weight], []
        for c, y_c in enumerate(before):
            locations.append(self.location_given(c, before).expand_as(log_weight))
            logits.append(logits[c] + log_bin_mass(y_c, locations[c], self.log_scale[:, :, c], self.levels))
        return torch.stack(logits, 2), torch.stack(locations, 2)

    @property
    def mean(self) -> Tensor:
        """The mean of the components' locations, each clipped to the range of the data."""
        means: list[Tensor] = []
        for c in range(self.location.shape[2]):
            means.append(self.location_given(c, means).clamp(-1, 1))
        y = (self.log_weight.exp().unsqueeze(2) * torch.stack(means, 2)).sum(1)
        return ((y + 1) / 2).clamp(0, 1)

    def sample(self, generator: Generator | None = None, *, batch_dim: int = 0) -> Tensor:
        """Channel after channel."""
        blank = torch.zeros_like(self.location[:, 0])
        noise = uniform(blank.shape, like=blank, generator=generator, batch_dim=batch_dim)
        return self.fill_in(blank, torch.zeros_like(blank, dtype=torch.bool), noise)

    def sample_rest(self, x: Tensor, known: Tensor, generator: Generator | None = None) -> Tensor:
        """As in `Output`, but a channel is drawn given those before it: what is known after it is not heeded."""
        return self.fill_in(x, known, uniform(x.shape, like=self.location, generator=generator))

    def fill_in(self, x: Tensor, known: Tensor, noise: Tensor) -> Tensor:
        """x, (B, C, H, W), where `known`; else p(y_c | y_<c) as uniform noise of that shape decides."""
        logits, log_scales = self.log_weight, self.log_scale.unbind(2)
        filled: list[Tensor] = []
        before: list[Tensor] = []
        for c, (x_c, known_c, noise_c) in enumerate(zip(x.unbind(1), known.unbind(1), noise.unbind(1), strict=True)):
            location = self.location_given(c, before)
            drawn = draw_conditional((logits, location, log_scales[c]), noise_c, self.levels)
            filled.append(torch.where(known_c, x_c, drawn))
            before.append((2 * filled[c] - 1).unsqueeze(1))
            if c < len(log_scales) - 1:
                logits = logits + log_bin_mass(before[c], location, log_scales[c], self.levels)
        return torch.stack(filled, 1)


def draw_conditional(mixture: Sequence[Tensor], noise: Tensor, levels: int) -> Tensor:
    """A component by the inverse of its distribution function, a value by that of the logistic, rounded to the grid.

    Args:
        mixture: logits, locations and log-scales, (B, K, ...) each.
        noise: (B, ...), uniform in [0, 1).
        levels: of the data.

    Returns:
        (B, ...), in [0, 1].
    """
    logits, location, log_scale = mixture
    chosen, left = choose_component(logits, noise)
    location, log_scale = (t.gather(1, chosen).squeeze(1) for t in (location, log_scale))
    return to_grid((location + log_scale.exp() * left.logit() + 1) / 2, levels)
