"""The features of a set of data, shared out over the processes; those of real data are kept on disk."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from genzoo.metrics.extractors import FeatureExtractor
from genzoo.metrics.frechet import FeatureStatistics
from genzoo.zoo.files import cached
from genzoo.zoo.processes import agree, gather, rank, share


def features_of(
    batches: Iterable[Callable[[], Tensor]],
    extractor: FeatureExtractor,
    *,
    keep: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[FeatureStatistics, Tensor]:
    """Statistics of the features of all batches, and the first `keep` features themselves. Collective.

    Args:
        batches: each makes its data, (B, *shape), when called; the same on every process, each of which calls
            its own share alone.
        extractor: data to features.
        keep: how many features to return, for the scores that compare features one by one.
        device: where features are computed.

    Returns:
        The statistics, and (at most keep, d) features in float32 on the CPU: the same on every process, and
        for any number of processes.

    Raises:
        ValueError: if there are no data, or the extractor does not give finite vectors.
    """
    total: FeatureStatistics | None = None
    kept: dict[int, Tensor] = {}
    num_kept = 0
    for index, make, counts in share(batches):
        features = extractor(make().to(device))
        if not counts:
            continue
        part = FeatureStatistics.of(features)
        if total is None:
            total = part
        else:
            total.merge(part)
        if num_kept < keep:
            kept[index] = features.float().cpu()
            num_kept += len(features)
    dim = max(gather(0 if total is None else len(total.mean)))
    if dim == 0:
        raise ValueError("There are no data to take features of: the loader gave no batch.")
    total = total or FeatureStatistics.empty(dim, device)
    total.all_reduce()
    rows = {index: features for part in gather(kept) for index, features in part.items()} if keep else {}
    return total, torch.cat([rows[index] for index in sorted(rows)] or [torch.empty(0, dim)])[:keep]


def real_features(
    read: Callable[[], Iterable[Tensor]],
    extractor: FeatureExtractor,
    *,
    keep: int = 0,
    device: torch.device | str = "cpu",
    cache_dir: str | Path | None = None,
) -> tuple[FeatureStatistics, Tensor]:
    """As `features_of`, for data that stay the same: computed once and kept on disk. Collective.

    They are found again by what they were computed from: every byte of the data, the extractor's fingerprint,
    and `keep`. A changed file, split, crop or extractor gives another key, so that nothing stale can be
    picked up.

    Args:
        read: starts reading from the beginning: batches (B, *shape), the same on every process.
        extractor: data to features.
        keep: how many features to return.
        device: where features are computed.
        cache_dir: a folder; None is $GENZOO_CACHE, or else ~/.cache/genzoo.
    """
    name = f"statistics/{_key(read(), extractor, keep)}.safetensors"
    path = cached(name, None if cache_dir is None else Path(cache_dir))
    if not agree(path.is_file()):
        statistics, features = features_of((_given(x) for x in read()), extractor, keep=keep, device=device)
        if rank() == 0:
            statistics.save(path, features=features)
        return statistics, features
    from safetensors.torch import load_file

    return agree((FeatureStatistics.load(path), load_file(path)["features"]) if rank() == 0 else None)


def _given(x: Tensor) -> Callable[[], Tensor]:
    return lambda: x


def _key(batches: Iterable[Tensor], extractor: FeatureExtractor, keep: int) -> str:
    digest = hashlib.sha256(f"{extractor.fingerprint} {keep}".encode())
    for x in batches:
        digest.update(f"{x.dtype} {tuple(x.shape[1:])}".encode())
        digest.update(x.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
