"""What turns data into features: a module, an entry of the zoo, or Inception.

A feature extractor is never a part of the model that it judges: it lives in a callback, outside the module
tree, so that neither checkpoints nor optimisers nor `module.train()` reach it.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.zoo.statement import StatedModule

INCEPTION = "inception"
AUTO = "auto"
#: whose features are of any image, grey or colour, in any size
ANY_IMAGE = "cifar10/classifier"


def fitting(protocol: Mapping[str, Any], shape: Sequence[int]) -> str | None:
    """The extractor of the zoo that fits data.

    Args:
        protocol: how the data are measured, as their datamodule states it.
        shape: of one datum.

    Returns:
        The name that the protocol has for "extractor"; where it has none, or "auto", `ANY_IMAGE` for grey or colour
        images (1 or 3, H, W), and None for data of another kind, of which the zoo has no extractor.
    """
    named = protocol.get("extractor", AUTO)
    if named != AUTO:
        return named
    return ANY_IMAGE if len(shape) == 3 and shape[0] in (1, 3) else None


class FeatureExtractor:
    """A frozen map from data (B, *shape) to features (B, d), with a name and a fingerprint.

    Args:
        source: an `nn.Module`, of which `features(x)` is used where it has that method and `module(x)`
            otherwise; the name of a zoo entry ("mnist/classifier") or anything else that `genzoo.load` takes;
            or "inception", the network of the FID: torch-fidelity's, 2048 dimensions, which takes images (B,
            1 or 3, H, W) in [0, 1].
        weights_path: a file with Inception's weights, for machines without a network.

    Raises:
        ValueError: if `weights_path` is given for anything but Inception.
        RuntimeError: if Inception's weights cannot be had.
    """

    def __init__(self, source: str | nn.Module, weights_path: str | None = None) -> None:
        if weights_path is not None and source != INCEPTION:
            raise ValueError(f"weights_path goes with the extractor {INCEPTION!r} alone, not with {source!r}.")
        self.is_inception = source == INCEPTION
        if isinstance(source, nn.Module):
            self.name = type(source).__name__
            self.module = source
        elif self.is_inception:
            self.name = INCEPTION
            self.module = Inception(weights_path)
        else:
            from genzoo.zoo import hub
            from genzoo.zoo.hub.wording import masked

            self.name = masked(source)
            self.module = hub.load(source)
        self.module.requires_grad_(False)
        #: whether it takes images in [0, 1]: a module of somebody's own is given them as they are
        self.takes_unit_images = self.is_inception or getattr(self.module, "levels", None) is not None
        self.fingerprint = fingerprint(self.module)
        self._features: Any = getattr(self.module, "features", self.module)
        if isinstance(self._features, nn.Sequential):  # torchvision calls its convolutional part so
            self._features = self.module

    def to(self, device: torch.device) -> "FeatureExtractor":
        """Moves the module."""
        self.module.to(device)
        return self

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Features of x: (B, *shape) -> (B, d).

        Raises:
            ValueError: if the extractor says that it is for data of another shape, or the data are not finite: a
                network may well make finite features of them.
        """
        shape = getattr(self.module, "shape", None)
        any_image = getattr(self.module, "any_image", False)
        if isinstance(shape, tuple) and tuple(x.shape[1:]) != shape and not any_image:
            raise ValueError(
                f"The extractor {self.name} is for data of shape {shape}, but these are {tuple(x.shape[1:])}."
                " Choose one that was trained on such data."
            )
        if not x.isfinite().all():
            bad = int((~x.isfinite()).flatten(1).any(1).sum())
            raise ValueError(f"{bad} of {len(x)} data or samples hold NaN or infinite values: they have no features.")
        return self.differentiable(x)

    def differentiable(self, x: Tensor) -> Tensor:
        """The same of data that were checked before, with the derivative by x."""
        self.module.eval()  # whoever shares the module may have switched it
        weight = next(self.module.parameters(), None)
        return self._features(x if weight is None else x.to(weight))  # also where it is, after an earlier use


class Inception(nn.Module):
    """torch-fidelity's Inception v3 as published with the FID, on images in [0, 1].

    Images are rounded to 8 bits (not truncated) and grey ones repeated to three channels; the network resizes
    to 299 × 299 by the bilinear map of the original TensorFlow graph.
    """

    def __init__(self, weights_path: str | None = None) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
        except ImportError as error:
            raise ModuleNotFoundError(
                "The extractor 'inception' needs torch-fidelity: pip install 'genzoo[inception]'."
            ) from error
        weights = io.BytesIO()
        # torch-fidelity unpickles the file that it is given: so it is given one of our own
        torch.save(inception_weights(weights_path, URL_INCEPTION_V3), weights)
        weights.seek(0)
        self.net = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=weights
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] -> (B, 2048).

        Raises:
            ValueError: for anything but grey or colour images.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"Inception takes images (B, 1 or 3, H, W), but it was given {tuple(x.shape)}.")
        pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8)
        return self.net(pixels.expand(-1, 3, -1, -1))[0]


def inception_weights(path: str | None, address: str) -> dict[str, Tensor]:
    """Inception's weights: read by the reader of torch that builds tensors and nothing else.

    Args:
        path: of the file; None downloads it, once.
        address: where from.

    Raises:
        RuntimeError: if the weights cannot be had, or the file holds something else.
    """
    try:
        if path is not None:
            return torch.load(path, map_location="cpu", weights_only=True)
        return torch.hub.load_state_dict_from_url(address, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise RuntimeError(
            f"Inception's weights could not be had ({error}). Without a network, fetch {address} elsewhere and name"
            " the file as `weights_path`."
        ) from error


def fingerprint(module: nn.Module) -> str:
    """A hash of what the module is and of every weight; of a module of genzoo's the same with every PyTorch.

    What any other module is, its printed structure says. That of ours is told by its class and its layers' kinds: a
    release of PyTorch that prints a layer otherwise makes no other extractor of it.
    """
    kinds = "\n".join(f"{name} {type(part).__qualname__}" for name, part in module.named_modules())
    structure = kinds if isinstance(module, StatedModule) else f"{type(module).__qualname__}\n{module}"
    digest = hashlib.sha256(structure.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
