"""What all our metrics have in common, beyond what torchmetrics gives: precision that nobody takes away, two sets."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from genzoo.metrics.extractors import FeatureExtractor


class Measure(Metric):
    """A `torchmetrics.Metric` whose states keep their precision, and whose processes need not all have seen data.

    `half()`, `set_dtype` and a Trainer with precision="bf16-true" move the states, and convert none: sums in float64
    are what makes a figure independent of batches and processes. On Apple's accelerator, which has no float64, they
    stay on the CPU.

    Args:
        kwargs: torchmetrics' own, such as `sync_on_compute`.
    """

    is_differentiable = False
    full_state_update: bool | None = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dist_sync_fn": gathered, **kwargs})

    def state(self, name: str) -> Tensor:
        """What a list state holds, as one tensor; of shape (0,) if that is nothing."""
        held = getattr(self, name)
        return torch.empty(0) if isinstance(held, list) and not held else dim_zero_cat(held)

    def synced(self) -> AbstractContextManager[None]:
        """Within it, states are those of all processes, as `compute` sees them. Collective."""
        return self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> nn.Module:
        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(float64_device(fn(torch.empty(0, device=tensor.device)).device))

        return super()._apply(moved, exclude_state)


class TwoSets(Measure):
    """Compares real data with samples, as an extractor sees them.

    `reset` forgets the samples and keeps the real data, so that each epoch's samples are compared with them (as
    torchmetrics' FID does with `reset_real_features=False`). A figure over several batches comes from `update` and
    `compute`; calling the metric gives that of one batch of samples.

    Args:
        extractor: data to features: what `FeatureExtractor` takes, or one; it stays outside the module tree, in no
            checkpoint and no optimiser. None: the metric is given features.
        reset_real_features: `reset` forgets the real data, too.
        kwargs: torchmetrics' own.
    """

    full_state_update = True  # one batch's own figure takes all the real data
    REAL, FAKE = "real_features", "fake_features"  #: the states, lists

    def __init__(
        self,
        extractor: str | nn.Module | FeatureExtractor | None = None,
        *,
        reset_real_features: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        known = extractor is None or isinstance(extractor, FeatureExtractor)
        self.extractor = extractor if known else FeatureExtractor(extractor)  # type: ignore[arg-type]
        self.reset_real_features = reset_real_features
        for name in (self.REAL, self.FAKE):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, x: Tensor, real: bool) -> None:
        """Adds a batch.

        Args:
            x: (B, *shape) data, or without an extractor (B, d) features.
            real: whether they are real data, or samples.

        Raises:
            ValueError: if the features are not a matrix, or not finite.
        """
        features = x if self.extractor is None else self.extractor.to(x.device)(x)  # type: ignore[union-attr]
        self.add(check_features(features.detach()), self.REAL if real else self.FAKE)

    def add(self, features: Tensor, name: str) -> None:
        """Adds features, (B, d), to the state of that name: as they are, in float32 at least."""
        wide = torch.promote_types(features.dtype, torch.float32)
        getattr(self, name).append(features.to(float64_device(features.device), wide))

    def reset(self) -> None:
        """Forgets the samples; and the real data where `reset_real_features` says so."""
        kept = getattr(self, self.REAL)
        for name in (self.REAL, self.FAKE):
            setattr(self, name, [])  # the lists themselves may be another metric's too, of the same MetricCollection
        super().reset()
        if not self.reset_real_features:
            setattr(self, self.REAL, kept)

    def features(self) -> tuple[Tensor, Tensor]:
        """The real features and those of the samples, (N, d) and (M, d), of all processes. Collective."""
        with self.synced():
            return self.state(self.REAL), self.state(self.FAKE)


def check_features(features: Tensor) -> Tensor:
    """The features themselves, (B, d).

    Raises:
        ValueError: if they are not a matrix, or not finite.
    """
    if features.ndim != 2:
        raise ValueError(
            f"Features must be a matrix (data, dimensions), but their shape is {tuple(features.shape)}."
            " Let the extractor flatten or average what it returns."
        )
    if not features.isfinite().all():
        bad = (~features.isfinite().all(1)).sum().item()
        raise ValueError(f"{bad} of {len(features)} feature vectors are not finite.")
    return features


def check_two_sets(real: Tensor, fake: Tensor, least: int) -> None:
    """Raises ValueError unless they are features (N, d) and (M, d), finite, at least so many of each."""
    if min(len(real), len(fake)) < least:
        raise ValueError(
            f"At least {least} features are needed on either side; there are {len(real)} real ones and {len(fake)} of"
            " samples."
        )
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"Features must be matrices of one width, but are {tuple(real.shape)} and {tuple(fake.shape)}."
        )
    check_features(real)
    check_features(fake)


def in_order(x: Tensor) -> Tensor:
    """The rows of x, (N, d), in an order that does not depend on the one they come in.

    What is drawn from them for a seed is then the same for any number of processes, each of which adds its own.
    """
    direction = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x[(x.double() @ direction.to(x.device)).argsort()]


def gathered(state: Tensor, group: Any = None) -> list[Tensor]:
    """Every process's tensor, in the order of ranks, of whatever shapes: those without data have none. Collective."""
    parts: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(parts, state.cpu(), group=group)
    return [part.to(state.device) for part in parts]


def double(x: Tensor) -> Tensor:
    """x in float64, where there is one: first moved, then converted, which no device does for another."""
    return x.to(float64_device(x.device)).double()


def float64_device(device: torch.device) -> torch.device:
    """Apple's accelerator has no float64."""
    return torch.device("cpu") if device.type == "mps" else device
