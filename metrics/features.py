"""The features of real data, shared out over the processes and kept on disk."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from genzoo.metrics.data import marked, spread
from genzoo.metrics.extractors import FeatureExtractor
from genzoo.metrics.frechet import FeatureStatistics
from genzoo.zoo.files import at_home, cached
from genzoo.zoo.processes import agree, gather, rank, share

LOOKED_AT = 8  # data of which kept features are computed again, to see whether they are still the extractor's
TOLERANCE = 0.01  # of their length, by which another processor, or another batch, may round them otherwise


def real_features(
    data: Iterable[Tensor],
    extractor: FeatureExtractor,
    *,
    keep: int = 0,
    device: torch.device | str = "cpu",
    cache_dir: str | Path | None = None,
) -> tuple[FeatureStatistics, Tensor]:
    """Statistics of the features of all data, and `keep` of the features themselves, spread evenly. Collective.

    Computed once and kept on disk. They are found again by what they were computed from: every byte of the data, the
    extractor's fingerprint, and `keep`. A changed file, split, crop or extractor gives another key. What the code of
    somebody's own extractor does is in no fingerprint, so the features of some of the first data are held against
    those that it gives now; those that are others, or damaged, are computed again, and what cannot be kept is not,
    which is said.

    Args:
        data: batches (B, *shape), the same on every process and each time that they are gone through.
        extractor: data to features.
        keep: how many features to return, for the scores that compare features one by one.
        device: where features are computed.
        cache_dir: a folder; None is $GENZOO_CACHE, or else ~/.cache/genzoo.

    Returns:
        The statistics, and (at most keep, d) features in float32, in the order of the data; on the CPU, the same on
        every process, and for any number of processes.

    Raises:
        ValueError: if there are no data, or the extractor does not give finite vectors.
    """
    asked, keep = keep, max(keep, 1)
    key, total = _key(data, extractor, keep)
    if not total:
        raise ValueError("There are no data to take features of: the loader gave no batch.")
    path = cached(f"statistics/{key}.safetensors", None if cache_dir is None else at_home(cache_dir))
    if (found := agree(_stored(path, total, keep) if rank() == 0 else None)) is not None:
        if type(extractor.module).__module__.startswith("genzoo."):  # whose code changes with its weights
            return found[0], found[1][:asked]
        x, wanted = next(marked(data, spread(total, keep)))
        now = extractor(x[wanted.to(x.device)][:LOOKED_AT].to(device)).float().cpu()
        if agree(_are_alike(now, found[1][: len(now)])):
            return found[0], found[1][:asked]
        rank_zero_info(f"{extractor.name} gives other features than those that were kept: they are computed again.")
    statistics: FeatureStatistics | None = None  # of this process's share
    kept: dict[int, Tensor] = {}
    for index, (x, wanted), counts in share(marked(data, spread(total, keep))):
        features = extractor(x.to(device))
        if counts:
            statistics = statistics or FeatureStatistics.empty(features.shape[-1], device)
            statistics.update(features)
            kept[index] = features[wanted.to(features.device)].float().cpu()
    parts = gather((None if statistics is None else statistics.moments.cpu(), kept))
    everything = FeatureStatistics.merged(moments for moments, _ in parts if moments is not None)
    by_index = {index: features for _, some in parts for index, features in some.items()}
    features = torch.cat([by_index[index] for index in sorted(by_index)])
    if rank() == 0:
        try:
            everything.save(path, features=features)
        except OSError as error:
            rank_zero_info(f"{path}: {error.strerror}; the statistics of the real data are not kept.")
    return everything, features[:asked]


def _are_alike(now: Tensor, then: Tensor) -> bool:
    """Whether two sets of features are the same, but for rounding."""
    return now.shape == then.shape and bool((now - then).norm() <= TOLERANCE * then.norm())


def _stored(path: Path, total: int, keep: int) -> tuple[FeatureStatistics, Tensor] | None:
    """What was computed before, of so many data; None if there is nothing of it on disk that can be used."""
    if not path.is_file():
        return None
    try:
        statistics, more = FeatureStatistics.read(path)
        features, expected = more.get("features"), (min(keep, total), len(statistics.mean))
        if statistics.count != total or features is None or tuple(features.shape) != expected:
            raise ValueError(f"{path} is damaged: it counts {statistics.count} of {total} data")
    except ValueError as error:
        rank_zero_info(f"{error}; the statistics of the real data are computed again.")
        return None
    return statistics, features.float()


def _key(batches: Iterable[Tensor], extractor: FeatureExtractor, keep: int) -> tuple[str, int]:
    """What the features are found by, and how many data there are."""
    digest, total = hashlib.sha256(f"{extractor.fingerprint} {keep} spread".encode()), 0
    for x in batches:
        digest.update(f"{x.dtype} {tuple(x.shape[1:])}".encode())
        digest.update(x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        total += len(x)
    return digest.hexdigest(), total
