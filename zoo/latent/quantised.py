"""The quantised autoencoder: an image as a small grid of codes (VQ-VAE, van den Oord, Vinyals & Kavukcuoglu 2017).

    minimise  −log p(x | q(f(x))),   q(z) the nearest of K vectors at each place of the grid

The encoder f makes of an image a grid of vectors, 2, 4 or 8 times as coarse as its pixels; each vector becomes one of
K codes; the decoder makes of these a distribution of images. The codes of an image are few and discrete: data for a
generator of their own, a prior. It is the prior that draws images, completes them and gives them a probability:
without one there is no `sample`, `complete` or `log_prob`. Nor is there a path between two images: at each place of
the grid on its own it would be a cross-fade.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from genzoo.zoo.checks import check_networks
from genzoo.zoo.codebook import codebook_figures
from genzoo.zoo.latent.encoder_decoder import Factor, TwoNetworksMixin
from genzoo.zoo.latent.quantisers import FSQ, Quantisation
from genzoo.zoo.likelihoods import Likelihood, Output, default_likelihood
from genzoo.zoo.memory import within_memory
from genzoo.zoo.module import ZooModule
from genzoo.zoo.networks.pyramid import pyramid
from genzoo.zoo.networks.resnet import SpatialDecoder, SpatialEncoder
from genzoo.zoo.parts import Part, example
from genzoo.zoo.processes import total
from genzoo.zoo.randomness import Generator


class QuantisedAutoencoder(TwoNetworksMixin, ZooModule):
    """An autoencoder of images whose codes are a grid of K possible ones.

    Capabilities: `codes`, `decode_codes`, `reconstruct`, `anomaly_score`. Validation logs how many of the codes the
    whole split uses, `val/codebook_usage`, and how evenly, `val/codebook_perplexity`.

    Args:
        shape, levels, optimizer, lr_scheduler: as in `ZooModule`; images only.
        quantiser: `FSQ` or `VQ`; None is FSQ(), whose codebook cannot collapse.
        factor: pixels along a side of which one code is made: 2, 4 or 8.
        width: channels of the convolutions at full image size; doubled with each halving.
        depth: residual blocks at each resolution.
        encoder: a module of your own, (B, *shape) in [−1, 1] (if continuous: as they are) to (B, d, h, w): a vector
            of the quantiser's size d at each place of the grid.
        decoder: a module of your own, (B, d, h, w) to the numbers that the likelihood needs, (B,
            *parameter_shape(shape, levels)) up to reshaping.
        likelihood: p(x | codes); None takes `default_likelihood(levels)`, see `VAE`.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    #: what is added to the loss of a training step, such as a callback's `FeatureLoss`: see `TakesAddedLoss`
    added_loss: Callable[[Tensor, Tensor], Tensor] | None = None

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        quantiser: Quantisation | None = None,
        factor: Factor = 4,
        width: int = 32,
        depth: int = 1,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: Likelihood | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if self.modality != "image":
            raise ValueError(f"{type(self).__name__} is for images, but the data are {self.modality}.")
        check_networks(encoder=encoder, decoder=decoder)
        if factor not in get_args(Factor):
            raise ValueError(f"factor={factor}: one code is made of 2, 4 or 8 pixels along a side.")
        stages = int(math.log2(factor))
        self.likelihood = likelihood or default_likelihood(self.levels)
        self.parameter_shape = self.likelihood.parameter_shape(self.shape, self.levels)
        planes = math.prod(self.parameter_shape) // math.prod(self.shape[1:])
        self.quantiser = within_memory((quantiser or FSQ()).build, "fewer codes, or shorter vectors for them")
        dim, sizes = self.quantiser.dim, {"width": width, "depth": depth}
        self.encoder, self.decoder = within_memory(
            lambda: (
                encoder or SpatialEncoder(self.shape, dim, stages, **sizes),
                decoder or SpatialDecoder(dim, (planes, *self.shape[1:]), stages, **sizes),
            ),
            f"a smaller width than {width}",
        )
        #: (h, w), how many codes an image has; and K, how many there are
        self.grid = pyramid(self.shape, stages)[-1]
        self.num_codes = self.quantiser.num_codes
        self.features_shape = self.code_shape = (dim, *self.grid)
        self._counts: Tensor | None = None  # (K,), how often the validation under way has seen each code

    # ---- the model

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """The codes of images, by row and column.

        Args:
            x: (B, *shape), in the data's range, though images need not lie on their grid.

        Returns:
            (B, h, w), int64 in [0, num_codes).
        """
        return self.quantised(self.features(self.check(x, on_grid=False)))[1]

    @torch.no_grad()
    def decode_codes(self, codes: Tensor) -> Tensor:
        """The expected images of codes.

        Args:
            codes: (B, h, w), int64 in [0, num_codes).

        Returns:
            (B, *shape), in the data's range: the mean of `decode`.

        Raises:
            TypeError: if codes are no tensor of int64.
            ValueError: if they have another shape, there are none, or a code is none of the model's.
        """
        return self.decode(codes).mean

    def decode(self, codes: Tensor) -> Output:
        """p(x | codes); arguments and errors as in `decode_codes`."""
        if not isinstance(codes, Tensor) or codes.dtype != torch.int64:
            given = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
            raise TypeError(f"codes are a tensor of int64, (B, {self.grid[0]}, {self.grid[1]}), but were {given}.")
        if codes.shape[1:] != self.grid or not len(codes):
            raise ValueError(
                f"Codes have the shape (B, {self.grid[0]}, {self.grid[1]}), but these have {tuple(codes.shape)}."
            )
        if not 0 <= int(codes.min()) <= int(codes.max()) < self.num_codes:
            raise ValueError(
                f"Codes lie in [0, {self.num_codes}), but these in [{int(codes.min())}, {int(codes.max())}]."
            )
        return self.decoded(self.vectors(codes))

    def quantised(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, d, h, w) to those of their codes, with a gradient straight through, and the codes (B, h, w)."""
        vectors, codes = self.quantiser(z.movedim(1, -1))
        return vectors.movedim(-1, 1), codes

    def vectors(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) to their vectors, (B, d, h, w)."""
        return self.quantiser.vectors(codes, self.like.dtype).movedim(-1, 1)

    def parts(self) -> dict[str, Part]:
        """The encoder, from images to codes, and the decoder, from codes to the image's mean."""
        x = example(*self.shape)
        x = x if self.levels is None else x.sigmoid()
        codes = torch.randint(self.num_codes, (2, *self.grid), generator=torch.Generator().manual_seed(0))
        return {
            "encoder": Part(self, lambda x: self.quantised(self.features(x))[1], {"x": x}, ("codes",)),
            "decoder": Part(self, lambda codes: self.decoded(self.vectors(codes)).mean, {"codes": codes}, ("mean",)),
        }

    # ---- training

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """−log p(x | codes), nats; for VQ β Σ ‖z − e‖² besides, and what else is added: "loss" is their sum."""
        z = self.features(x)
        if torch.is_grad_enabled():  # in training, of a model in evaluation mode too
            self.quantiser.learn(z.detach().movedim(1, -1))
        vectors, _ = self.quantised(z)
        output = self.decoded(vectors)
        terms = {"reconstruction_error": -output.log_prob(x)}
        if self.quantiser.commitment > 0:
            distance = (z - vectors.detach()).square().flatten(1).sum(1)
            terms["commitment"] = self.quantiser.commitment * distance
        if self.added_loss is not None:
            terms["added_loss"] = self.added_loss(x, output.mean)
        return {"loss": torch.stack(list(terms.values())).sum(0), **terms}

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """The loss: how many nats the reconstruction leaves open. No likelihood of x."""
        return {"loss": self.reconstruction_error(x)}

    def reconstruction_error(self, x: Tensor) -> Tensor:
        """−log p(x | codes of x): (B,), nats."""
        return -self.decoded(self.quantised(self.features(x))[0]).log_prob(x)

    def on_validation_epoch_start(self) -> None:
        """Begins to count the codes."""
        self._counts = torch.zeros(self.num_codes, dtype=torch.int64, device=self.device)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs `evaluation`, and counts the codes."""
        super().validation_step(batch, batch_idx, dataloader_idx)
        codes = self.quantised(self.features(self.unpack(batch)[0]))[1].flatten()
        assert self._counts is not None
        self._counts.index_add_(0, codes, torch.ones_like(codes))

    def on_validation_epoch_end(self) -> None:
        """Logs how the whole split uses the codebook."""
        super().on_validation_epoch_end()
        assert self._counts is not None
        for name, value in codebook_figures(total(self._counts)).items():
            self.log(f"val/{name}", value.to(torch.float32), sync_dist=True)
        self._counts = None

    # ---- capabilities

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """(B, *shape): the expected image of the codes of x."""
        return self.decoded(self.quantised(self.features(self.check(x, on_grid=False)))[0]).mean

    @torch.no_grad()
    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """The reconstruction error −log p(x | codes of x).

        Args:
            x: (B, *shape).
            scorer: "reconstruction", the only one and the default.

        Returns:
            (B,), nats, higher = odder.
        """
        if scorer not in (None, "reconstruction"):
            raise ValueError(f"scorer={scorer!r}: a quantised autoencoder knows 'reconstruction'.")
        return self.reconstruction_error(self.check(x))
