"""The two networks that autoencoders of every kind are made of, and what can be done with the codes between them."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from genzoo.zoo.checks import check_networks
from genzoo.zoo.likelihoods import Likelihood, Output, default_likelihood
from genzoo.zoo.memory import within_memory
from genzoo.zoo.mixins import LatentMixin
from genzoo.zoo.modality import Modality
from genzoo.zoo.networks.mlp import MLP
from genzoo.zoo.networks.pyramid import pyramid
from genzoo.zoo.networks.resnet import FlatDecoder, ResNetDecoder, ResNetEncoder, SpatialDecoder, SpatialEncoder
from genzoo.zoo.parts import Part, example
from genzoo.zoo.precision import to_network

Network = Literal["mlp", "resnet", "spatial"]
Factor = Literal[2, 4, 8]


class TwoNetworksMixin:
    """What the two networks say: `features` of data by the encoder, `decoded` of codes by the decoder.

    Its constructor sets `encoder`, `decoder`, `likelihood` and the three shapes.
    """

    shape: tuple[int, ...]
    levels: int | None
    standardised: Callable[[Tensor], Tensor]
    output_in_own_units: Callable[[Output], Output]
    encoder: nn.Module
    decoder: nn.Module
    likelihood: Likelihood

    #: of one datum: of what the encoder gives, what the decoder takes, and the numbers that the likelihood is told
    features_shape: tuple[int, ...]
    code_shape: tuple[int, ...]
    parameter_shape: tuple[int, ...]

    def features(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the encoder says of x, and of its class: (B, *features_shape), in x's precision."""
        h = self.encoder(self.seen(x, labels))
        if h.shape != (x.shape[0], *self.features_shape):
            raise ValueError(
                f"The encoder must map (B, *shape) to (B, *{self.features_shape}), but of {len(x)} data gave"
                f" {tuple(h.shape)}."
            )
        return h.to(x.dtype)

    def seen(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The encoder's input: images in [−1, 1], continuous data in standard units, in its own precision."""
        return to_network(self.standardised(x) if self.levels is None else 2 * x - 1, self.encoder)

    def decoded(self, z: Tensor) -> Output:
        """p(x | z) for codes (B, *code_shape) that come from the model itself."""
        parameters = self.decoder(to_network(z, self.decoder))
        size = (z.shape[0], *self.parameter_shape)
        if parameters.numel() != math.prod(size):
            raise ValueError(
                f"The decoder must map (B, *{self.code_shape}) to what {type(self.likelihood).__name__} needs for"
                f" each datum, {size} up to reshaping, but gave {tuple(parameters.shape)}."
            )
        return self.output_in_own_units(self.likelihood.output(parameters.reshape(size), self.levels))


class EncoderDecoderMixin(TwoNetworksMixin, LatentMixin):
    """Gives `decode`, and the networks under it, to a family that can `encode` data as flat vectors.

    Its constructor calls `build_networks`, whose arguments mean the same in every such family: see `VAE`.
    """

    num_dims: int
    modality: Modality

    def build_networks(
        self,
        per_latent: int,
        *,
        latent_dim: int,
        network: Network | None,
        width: int | None,
        depth: int | None,
        encoder: nn.Module | None,
        decoder: nn.Module | None,
        likelihood: Likelihood | None,
        factor: Factor | None,
        num_classes: int | None = None,
    ) -> None:
        """Makes `encoder`, from data to per_latent numbers for each latent, `decoder`, from codes, and `likelihood`.

        Of the "spatial" network latent_dim is the size of the vector at each place of a grid that is by `factor`
        coarser than the image. A code is that grid, flat: (c, h, w) is `latent_shape`.

        With `num_classes` both are told the class: the decoder as the last numbers of the code, one-hot; the encoder
        as a datum of each class, learned from zero, that is added to what it sees.

        Raises:
            ValueError: on arguments that do not fit each other or the data.
        """
        if self.modality not in ("image", "points"):
            raise ValueError(f"{type(self).__name__} is for images and points, but the data are {self.modality}.")
        if latent_dim < 1:
            raise ValueError(f"latent_dim={latent_dim}: a code has at least one dimension.")
        check_networks(encoder=encoder, decoder=decoder)
        network = network or ("resnet" if len(self.shape) == 3 else "mlp")
        if network not in get_args(Network):
            ours = ", ".join(map(repr, get_args(Network)))
            raise ValueError(f"network={network!r}: choose one of {ours}, or give `encoder` and `decoder`.")
        if factor is not None and network != "spatial":
            raise ValueError(f"factor={factor}: with network={network!r} a code is no grid; choose 'spatial'.")
        #: of the latents: (d,), or (c, h, w) where they are a grid
        self.latent_shape: tuple[int, ...] = (latent_dim,)
        stages = 0
        if network == "spatial":
            factor = 4 if factor is None else factor
            if len(self.shape) != 3 or factor not in get_args(Factor):
                raise ValueError(
                    f"network='spatial', factor={factor}: of images (C, H, W), one vector is made of 2, 4 or 8 pixels"
                    f" along a side; the data have shape={self.shape}."
                )
            stages = int(math.log2(factor))
            self.latent_shape = (latent_dim, *pyramid(self.shape, stages)[-1])
        self.latent_dim = math.prod(self.latent_shape)
        self.code_features = code_features = per_latent * self.latent_dim
        #: of a code: the latents, and a number for each class where the model is conditional
        self.code_dim = self.latent_dim + (num_classes or 0)
        self.features_shape, self.code_shape = (code_features,), (self.code_dim,)
        self.likelihood = likelihood or default_likelihood(self.levels)
        self.parameter_shape = self.likelihood.parameter_shape(self.shape, self.levels)
        if network == "mlp":
            sizes = {"width": width or 512, "depth": 2 if depth is None else depth}
            outputs = math.prod(self.parameter_shape)
            self.encoder, self.decoder = within_memory(
                lambda: (
                    encoder or MLP(self.num_dims, code_features, **sizes),
                    decoder or MLP(self.code_dim, outputs, **sizes),
                ),
                f"network='resnet', for images, or a smaller width than {sizes['width']}",
            )
        else:
            sizes = {"width": width or 32, "depth": 1 if depth is None else depth}
            image = (math.prod(self.parameter_shape) // math.prod(self.shape[1:]), *self.shape[1:])

            def networks() -> tuple[nn.Module, nn.Module]:
                if network == "resnet":
                    return (
                        encoder or ResNetEncoder(self.shape, code_features, **sizes),
                        decoder or ResNetDecoder(self.code_dim, image, **sizes),
                    )
                vectors = SpatialEncoder(self.shape, per_latent * latent_dim, stages, **sizes)
                images = SpatialDecoder(latent_dim + (num_classes or 0), image, stages, **sizes)
                return (
                    encoder or nn.Sequential(vectors, nn.Flatten()),
                    decoder or FlatDecoder(images, self.latent_shape),
                )

            self.encoder, self.decoder = within_memory(
                networks,
                f"smaller images, a smaller latent_dim than {latent_dim} or width than {sizes['width']}",
            )
        self.class_ = None
        if num_classes is not None:
            self.class_ = nn.Embedding.from_pretrained(torch.zeros(num_classes, self.num_dims), freeze=False)

    def seen(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """As in the base, and the class added."""
        seen = super().seen(x)
        if self.class_ is not None and labels is not None:
            seen = seen + self.class_(labels).view_as(seen)
        return seen

    def parts(self) -> dict[str, Part]:
        """The encoder, from data to codes, and the decoder, from codes to the datum's mean."""
        x, z = example(*self.shape), example(self.code_dim)
        x = x if self.levels is None else x.sigmoid()
        return {
            "encoder": Part(self, self.features, {"x": x}, ("z",)),
            "decoder": Part(self, lambda z: self.decoded(z).mean, {"z": z}, ("mean",)),
        }

    def decode(self, z: Tensor) -> Output:
        """p(x | z) for codes z of shape (B, latent_dim); or (B, latent_dim + C), with a class, one-hot.

        Raises:
            TypeError: if z is no tensor of floats.
            ValueError: if it has another shape, no codes, or values that are not finite.
        """
        if not isinstance(z, Tensor) or not z.is_floating_point():
            given = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise TypeError(f"z is a tensor of codes, floats of shape (B, {self.code_dim}), but was given {given}.")
        if z.ndim != 2 or z.shape[1] != self.code_dim or not len(z):
            raise ValueError(f"Codes have the shape (B, {self.code_dim}), but z is {tuple(z.shape)}.")
        if not bool(z.isfinite().all()):
            raise ValueError("z holds NaN or infinite values: a code is made of finite numbers.")
        return self.decoded(z)
