"""What a prior is shown of an autoencoder: its codes, as data of the prior's own kind.

    discrete     the grid of a `QuantisedAutoencoder`: tokens row by row, or an image of one channel
    continuous   the grid of a spatial `VAE`: an image of as many channels as a vector has numbers, each standardised
                 where the training data are encoded once; where both parts learn at once, as they are

With z a draw of q(z | x), and q certain of one z where codes are discrete,

    log p(x) ≥ E_q [log p(x | z) + log p(z) − log q(z | x)].

The last two are densities of the standardised z: the change of units is the same in both, and cancels.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.zoo.codebook import codebook_figures
from genzoo.zoo.latent.quantised import QuantisedAutoencoder
from genzoo.zoo.latent.vae import VAE
from genzoo.zoo.likelihoods import Output
from genzoo.zoo.modality import Modality, from_codes, modality, to_codes
from genzoo.zoo.precision import MeasuredBuffers
from genzoo.zoo.processes import total
from genzoo.zoo.randomness import Generator, normal


class CodeSpace(MeasuredBuffers, ABC):
    """The codes of an autoencoder as data. The autoencoder is an argument of each method, and no part of this.

    Args:
        shape: of the code of one datum, as the prior sees it.
        levels: how many values each number of it can take; None: continuous.
        grid: (h, w), the places of the codes.
    """

    def __init__(self, shape: tuple[int, ...], levels: int | None, grid: tuple[int, int]) -> None:
        super().__init__()
        self.shape, self.levels, self.grid = shape, levels, grid
        self.kind: Modality = modality(shape, levels)

    @abstractmethod
    def posterior(self, autoencoder: Any, x: Tensor) -> Tensor:
        """What says q(z | x), and can be kept: (B, …)."""

    @abstractmethod
    def draw(self, posterior: Tensor, generator: Generator | None = None) -> Tensor:
        """z ~ q(z | x): (B, *shape), data of the prior."""

    @abstractmethod
    def mean(self, posterior: Tensor) -> Tensor:
        """E_q z, or the only z that there is: (B, *shape)."""

    @abstractmethod
    def log_q(self, posterior: Tensor, z: Tensor) -> Tensor:
        """log q(z | x): (B,), nats; 0 where q is certain."""

    @abstractmethod
    def output(self, autoencoder: Any, z: Tensor) -> Output:
        """p(x | z)."""

    def measure(self, posterior: Tensor) -> None:
        """Measures what standardises the codes, from those of all training data. Collective."""

    def figures(self, posterior: Tensor) -> dict[str, Tensor]:
        """What is to be said of the codes of a whole split. Collective."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What has to be known to decode what a prior draws, in a form that JSON has."""
        return {}

    def known(self, pixels: Tensor) -> Tensor:
        """Which codes are known: those of which each pixel is. (B, C, H, W) bool to (B, *shape)."""
        sides = [math.ceil(side / cells) for side, cells in zip(pixels.shape[2:], self.grid, strict=True)]
        factor = 2 ** math.ceil(math.log2(max(sides)))  # of an odd side the last cell is the smaller one
        unknown = (~pixels.all(1, keepdim=True)).float()
        unknown = F.pad(unknown, (0, -unknown.shape[3] % factor, 0, -unknown.shape[2] % factor))
        cells = F.max_pool2d(unknown, factor) == 0
        return cells.expand(-1, self.shape[0] if len(self.shape) == 3 else 1, -1, -1).reshape(-1, *self.shape)


class DiscreteCodes(CodeSpace):
    """The grid of K codes of a `QuantisedAutoencoder`.

    Args:
        autoencoder: whose codes they are.
        as_text: whether the prior reads them row by row, (h · w,), or as an image, (1, h, w).
    """

    def __init__(self, autoencoder: QuantisedAutoencoder, *, as_text: bool) -> None:
        shape = (math.prod(autoencoder.grid),) if as_text else (1, *autoencoder.grid)
        super().__init__(shape, autoencoder.num_codes, autoencoder.grid)
        self.num_codes = autoencoder.num_codes

    def posterior(self, autoencoder: QuantisedAutoencoder, x: Tensor) -> Tensor:
        """(B, h, w), the codes."""
        return autoencoder.quantised(autoencoder.features(x))[1].int()

    def draw(self, posterior: Tensor, generator: Generator | None = None) -> Tensor:
        """See `CodeSpace`."""
        return self.mean(posterior)

    def mean(self, posterior: Tensor) -> Tensor:
        """See `CodeSpace`."""
        return from_codes(posterior.long().view(-1, *self.shape), self.num_codes, self.kind)

    def log_q(self, posterior: Tensor, z: Tensor) -> Tensor:
        """See `CodeSpace`."""
        return torch.zeros(posterior.shape[0], device=z.device)

    def output(self, autoencoder: QuantisedAutoencoder, z: Tensor) -> Output:
        """See `CodeSpace`."""
        codes = to_codes(z, self.num_codes, self.kind).view(-1, *self.grid)
        return autoencoder.decoded(autoencoder.vectors(codes))

    def figures(self, posterior: Tensor) -> dict[str, Tensor]:
        """Codebook usage and perplexity."""
        codes = posterior.flatten().long()
        counts = torch.zeros(self.num_codes, dtype=torch.int64, device=codes.device)
        return codebook_figures(total(counts.index_add_(0, codes, torch.ones_like(codes))))


class ContinuousCodes(CodeSpace):
    """The grid of Gaussian latents of a spatial `VAE`, each channel standardised by what `measure` measured.

    Args:
        autoencoder: whose codes they are.
    """

    channel_mean: Tensor  # (c, 1, 1)
    channel_std: Tensor  # (c, 1, 1)

    def __init__(self, autoencoder: VAE) -> None:
        channels, height, width = autoencoder.latent_shape
        super().__init__(autoencoder.latent_shape, None, (height, width))
        self.register_buffer("channel_mean", torch.zeros(channels, 1, 1, dtype=torch.float32))
        self.register_buffer("channel_std", torch.ones(channels, 1, 1, dtype=torch.float32))

    def posterior(self, autoencoder: VAE, x: Tensor) -> Tensor:
        """(B, 2, c, h, w), μ and σ, not standardised."""
        q = autoencoder.posterior(x).base_dist
        return torch.stack([q.loc, q.scale], 1).view(-1, 2, *self.shape)

    def standard(self, posterior: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ of the standardised latents, (B, c, h, w) each."""
        mean, std = posterior.unbind(1)
        return (mean - self.channel_mean) / self.channel_std, std / self.channel_std

    def draw(self, posterior: Tensor, generator: Generator | None = None) -> Tensor:
        """See `CodeSpace`."""
        mean, std = self.standard(posterior)
        return mean + std * normal(mean.shape, like=mean, generator=generator)

    def mean(self, posterior: Tensor) -> Tensor:
        """See `CodeSpace`."""
        return self.standard(posterior)[0]

    def log_q(self, posterior: Tensor, z: Tensor) -> Tensor:
        """See `CodeSpace`."""
        mean, std = self.standard(posterior)
        nats = -0.5 * ((z - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
        return nats.flatten(1).sum(1)

    def output(self, autoencoder: VAE, z: Tensor) -> Output:
        """See `CodeSpace`."""
        return autoencoder.decoded((self.channel_mean + self.channel_std * z).flatten(1))

    @torch.no_grad()
    def measure(self, posterior: Tensor) -> None:
        """Each channel's E μ, and the root of Var μ + E σ², over the data and the places."""
        means, stds = (part.unbind(1) for part in posterior.unbind(1))  # one at a time in double precision
        number = total(torch.tensor(float(means[0].numel()), dtype=torch.float64, device=posterior.device))
        centre = total(torch.stack([mean.double().sum() for mean in means])) / number
        squares = [
            (mean.double() - at).square().sum() + std.double().square().sum()
            for mean, std, at in zip(means, stds, centre, strict=True)
        ]
        spread = total(torch.stack(squares)) / number
        self.channel_mean.copy_(centre.view_as(self.channel_mean))
        self.channel_std.copy_(spread.sqrt().view_as(self.channel_std))

    def facts(self) -> dict[str, Any]:
        """The channels' means and standard deviations."""
        return {name: getattr(self, name).flatten().tolist() for name in ("channel_mean", "channel_std")}


def space_of(autoencoder: Any, *, as_text: bool) -> CodeSpace:
    """The codes of an autoencoder, for a prior that reads text or one of images.

    Raises:
        ValueError: if they are no grid.
    """
    if isinstance(autoencoder, QuantisedAutoencoder):
        return DiscreteCodes(autoencoder, as_text=as_text)
    if isinstance(autoencoder, VAE) and len(autoencoder.latent_shape) == 3 and autoencoder.num_classes is None:
        return ContinuousCodes(autoencoder)
    raise ValueError(
        f"autoencoder: a prior is for codes that are a grid, but was given {type(autoencoder).__name__}. Take a"
        " QuantisedAutoencoder, or a VAE with network='spatial' that is not conditional."
    )
