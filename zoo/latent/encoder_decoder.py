"""The two networks that autoencoders of every kind are made of, and what can be done with the codes between them."""

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from genzoo.zoo.likelihoods import Likelihood, Output, default_likelihood
from genzoo.zoo.mixins import LatentMixin
from genzoo.zoo.modality import Modality
from genzoo.zoo.networks.mlp import MLP
from genzoo.zoo.networks.resnet import ResNetDecoder, ResNetEncoder
from genzoo.zoo.precision import to_network

Network = Literal["mlp", "resnet"]


class EncoderDecoderMixin(LatentMixin):
    """Gives `decode`, and the networks under it, to a family that can `encode`.

    Its constructor calls `build_networks`, whose arguments mean the same in every such family: see `VAE`.
    """

    shape: tuple[int, ...]
    levels: int | None
    num_dims: int
    modality: Modality
    standardised: Callable[[Tensor], Tensor]
    output_in_own_units: Callable[[Output], Output]

    def build_networks(
        self,
        code_features: int,
        *,
        latent_dim: int,
        network: Network | None,
        width: int | None,
        depth: int | None,
        encoder: nn.Module | None,
        decoder: nn.Module | None,
        likelihood: Likelihood | None,
    ) -> None:
        """Makes `encoder`, from data to code_features numbers, `decoder`, from codes to data, and `likelihood`.

        Raises:
            ValueError: on arguments that do not fit each other or the data.
        """
        if self.modality not in ("image", "points"):
            raise ValueError(f"{type(self).__name__} is for images and points, but the data are {self.modality}.")
        if latent_dim < 1:
            raise ValueError(f"latent_dim={latent_dim}: a code has at least one dimension.")
        self.code_features, self.latent_dim = code_features, latent_dim
        self.likelihood = likelihood or default_likelihood(self.levels)
        self.num_parameters = self.likelihood.num_parameters(self.levels)
        network = network or ("resnet" if len(self.shape) == 3 else "mlp")
        if network not in ("mlp", "resnet"):
            raise ValueError(f"network={network!r}: choose 'mlp' or 'resnet', or give `encoder` and `decoder`.")
        if network == "mlp":
            sizes = {"width": width or 512, "depth": 2 if depth is None else depth}
            self.encoder = encoder or MLP(self.num_dims, code_features, **sizes)
            self.decoder = decoder or MLP(latent_dim, self.num_parameters * self.num_dims, **sizes)
        else:
            sizes = {"width": width or 32, "depth": 1 if depth is None else depth}
            self.encoder = encoder or ResNetEncoder(self.shape, code_features, **sizes)
            self.decoder = decoder or ResNetDecoder(latent_dim, self.shape, self.num_parameters, **sizes)

    def features(self, x: Tensor) -> Tensor:
        """What the encoder says of x: (B, code_features), in x's precision."""
        h = self.encoder(to_network(self.standardised(x) if self.levels is None else 2 * x - 1, self.encoder))
        if h.shape != (len(x), self.code_features):
            raise ValueError(
                f"The encoder must map (B, *shape) to (B, code_features) = {(len(x), self.code_features)},"
                f" but gave {tuple(h.shape)}."
            )
        return h.to(x.dtype)

    def decode(self, z: Tensor) -> Output:
        """p(x | z) for z of shape (B, latent_dim).

        Raises:
            TypeError: if z is no tensor of floats.
            ValueError: if it has another shape, no codes, or values that are not finite.
        """
        if not isinstance(z, Tensor) or not z.is_floating_point():
            given = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise TypeError(f"z is a tensor of codes, floats of shape (B, {self.latent_dim}), but was given {given}.")
        if z.ndim != 2 or z.shape[1] != self.latent_dim or not len(z):
            raise ValueError(f"Codes have the shape (B, {self.latent_dim}), but z is {tuple(z.shape)}.")
        if not bool(z.isfinite().all()):
            raise ValueError("z holds NaN or infinite values: a code is made of finite numbers.")
        return self.decoded(z)

    def decoded(self, z: Tensor) -> Output:
        """What `decode` gives, for z that comes from the model itself."""
        parameters = self.decoder(to_network(z, self.decoder))
        size = (len(z), self.num_parameters, *self.shape)
        if parameters.numel() != math.prod(size):
            raise ValueError(
                f"The decoder must map (B, {self.latent_dim}) to {self.num_parameters} numbers for each dimension of"
                f" the datum, {size} up to reshaping, but gave {tuple(parameters.shape)}."
            )
        return self.output_in_own_units(self.likelihood.output(parameters.reshape(size), self.levels))
