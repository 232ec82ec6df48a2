"""A small image classifier, whose penultimate layer serves as a frozen feature extractor.

Fréchet distances on grey digits need features of grey digits; Inception's mean little there. The zoo's classifiers
are trained by a recipe, hashed, and state their accuracy, so that a distance measured on them means the same next
year.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.memory import within_memory
from genzoo.zoo.module import ZooModule
from genzoo.zoo.parts import Part, example
from genzoo.zoo.precision import full_precision, to_network
from genzoo.zoo.randomness import Generator


class Classifier(ZooModule):
    """Convolutions with batch normalisation, a feature layer, a softmax.

    Args:
        shape: (C, H, W) of the images.
        levels: how many values each pixel can take.
        num_classes: at least 2.
        feature_dim: d, of the features.
        width: channels of the first stage; the second has twice as many.
        max_shift: training images are shifted by up to so many pixels in each direction, zeros moving in.
        dropout: of the features, while training.
        any_image: whether it also has features of images of other sizes, and of grey images where it is for colour:
            brought to `shape` by antialiased bilinear interpolation, and grey repeated to three channels.
        optimizer, lr_scheduler: as in `ZooModule`.

    Raises:
        ValueError: if the data are no images or have fewer than two classes.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        num_classes: int | None,
        *,
        feature_dim: int = 64,
        width: int = 32,
        max_shift: int = 0,
        dropout: float = 0.0,
        any_image: bool = False,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if len(self.shape) != 3:
            raise ValueError(f"A Classifier is for images (C, H, W), but shape={self.shape}.")
        if num_classes is None or num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: a Classifier needs labels of at least two classes.")
        self.num_classes, self.feature_dim, self.max_shift = num_classes, feature_dim, max_shift
        self.any_image = any_image
        channels = [self.shape[0], width, width, 2 * width, 2 * width]
        height, width_ = (-(-n // 4) for n in self.shape[1:])

        def networks() -> tuple[nn.Module, nn.Module]:
            layers: list[nn.Module] = []
            for i, (before, after) in enumerate(pairwise(channels)):
                layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
                if i % 2 == 1:
                    layers.append(nn.MaxPool2d(2, ceil_mode=True))
            return nn.Sequential(*layers), nn.Linear(2 * width * height * width_, feature_dim)

        less = f"a smaller width than {width}, or a smaller feature_dim than {feature_dim}"
        self.trunk, self.embed = within_memory(networks, less)
        self.dropout = nn.Dropout(dropout)
        self.outlet = nn.Linear(feature_dim, num_classes)
        self.to(memory_format=torch.channels_last)  # several times faster in bfloat16

    def features(self, x: Tensor) -> Tensor:
        """The penultimate layer: (B, *shape) in [0, 1] to (B, feature_dim), non-negative.

        With `any_image` of (B, 1 or C, H, W).
        """
        if self.any_image and x.shape[1:] != self.shape:
            x = _brought_to(x, self.shape)
        return F.relu(self.embed(self.trunk(to_network(2 * x - 1, self)).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) in [0, 1] to logits (B, num_classes)."""
        return self.outlet(self.dropout(self.features(x)))

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Cross-entropy, in nats, on shifted images."""
        return self._scores(_shift(x, self.max_shift) if self.max_shift else x, labels)

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """Cross-entropy ("loss", nats) and accuracy (0 or 1 for each datum)."""
        return self._scores(x, labels)

    def _scores(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        if labels is None:
            raise ValueError("A Classifier is trained on batches (x, y), but the batch has no labels y.")
        logits = full_precision(self(x))
        loss = F.cross_entropy(logits, labels, reduction="none")
        return {"loss": loss, "accuracy": (logits.argmax(1) == labels).float()}

    def unpack(self, batch: object, stage: str | None = None) -> tuple[Tensor, Tensor | None]:
        """As the base does, and checks the labels of the same batches."""
        check = self._must_check(stage)
        x, labels = super().unpack(batch, stage)
        if check and labels is not None and (labels.shape != x.shape[:1] or labels.dtype != torch.int64):
            raise ValueError(
                f"Labels are {labels.dtype} of shape {tuple(labels.shape)}, but a batch of {len(x)} takes int64 of"
                f" shape ({len(x)},): the number of each datum's class, in [0, {self.num_classes - 1}]."
            )
        if check and labels is not None and not bool(((labels >= 0) & (labels < self.num_classes)).all()):
            raise ValueError(
                f"Labels lie in [{int(labels.min())}, {int(labels.max())}], but this Classifier has"
                f" num_classes={self.num_classes}: they must lie in [0, {self.num_classes - 1}]."
            )
        return x, labels

    def parts(self) -> dict[str, Part]:
        """The classifier, from images in [0, 1] to logits and features."""
        x = example(*self.shape).sigmoid()
        return {"classifier": Part(self, lambda x: (self(x), self.features(x)), {"x": x}, ("logits", "features"))}

    def predict_step(self, batch: object, batch_idx: int = 0, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """The class probabilities, (B, num_classes)."""
        x, _ = self.unpack(batch, "predict")
        return {"probabilities": full_precision(self(x)).softmax(1)}


def _brought_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images (B, C, H, W) in another size, and in colour if they are grey."""
    if x.ndim != 4 or x.shape[1] not in (1, shape[0]):
        raise ValueError(f"These are {tuple(x.shape[1:])}, but images are (1 or {shape[0]}, H, W).")
    if x.shape[2:] != shape[1:]:
        x = F.interpolate(full_precision(x), shape[1:], mode="bilinear", antialias=True)
    return x.expand(-1, shape[0], -1, -1)


def _shift(x: Tensor, most: int) -> Tensor:
    """Each image shifted by its own whole number of pixels in [−most, most]², zeros moving in."""
    b, _, height, width = x.shape
    padded = F.pad(x, (most, most, most, most))
    rows = torch.randint(0, 2 * most + 1, (b, 1, 1), device=x.device) + torch.arange(height, device=x.device)[:, None]
    columns = torch.randint(0, 2 * most + 1, (b, 1, 1), device=x.device) + torch.arange(width, device=x.device)
    batch = torch.arange(b, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)
