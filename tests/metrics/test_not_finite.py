"""NaN and infinity are an error in every measure, on whichever side they come in: none makes a figure of them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from genzoo.metrics import figures
from genzoo.metrics.anomalies import PrincipalComponents, auroc
from genzoo.metrics.extractors import FeatureExtractor
from genzoo.metrics.features import real_features
from genzoo.metrics.frechet import (
    FeatureStatistics,
    FrechetDistance,
    FrechetReference,
    frechet_distance,
    frechet_error,
    frechet_floor_error,
)
from genzoo.metrics.kernel import KernelDistance, kernel_distance
from genzoo.metrics.likelihood import BitsPerDim, NegativeLogLikelihood
from genzoo.metrics.manifold import ManifoldScores, manifold_errors, manifold_scores
from genzoo.metrics.modes import ModeCoverage, mode_coverage

RING = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])


def points(seed: int = 0) -> Tensor:
    return torch.randn(40, 2, generator=torch.Generator().manual_seed(seed))


def updated(metric: Any, real: Tensor, fake: Tensor) -> Any:
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute()


TWO_SETS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "frechet": lambda a, b: frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b)),
    "frechet_error": frechet_error,
    "frechet_floor_error": frechet_floor_error,
    "FrechetDistance": lambda a, b: updated(FrechetDistance(), a, b),
    "kid": kernel_distance,
    "KernelDistance": lambda a, b: updated(KernelDistance(), a, b),
    "prdc": manifold_scores,
    "prdc_errors": lambda a, b: manifold_errors(
        a, b, dict.fromkeys(("precision", "recall", "density", "coverage"), 1.0)
    ),
    "ManifoldScores": lambda a, b: updated(ManifoldScores(), a, b),
}


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", TWO_SETS)
def test_two_sets_of_features(name: str, value: float, side: int) -> None:
    sets = [points(0), points(1)]
    TWO_SETS[name](*sets)
    sets[side][7, 1] = value
    with pytest.raises(ValueError, match="1 of 40 feature vectors are not finite"):
        TWO_SETS[name](*sets)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_statistics_that_hold_it_give_no_distance(value: float) -> None:
    good = FeatureStatistics.of(points())
    for place in ((1, 0), (2, 1), (3, 0)):  # of the mean, of the scatter above and below its diagonal
        bad = FeatureStatistics.of(points(1))
        bad.moments[place] = value
        with pytest.raises(ValueError, match="not finite"):
            FrechetReference(bad)
        with pytest.raises(ValueError, match="not finite"):
            FrechetReference(good).distance(bad)
        metric = FrechetDistance()
        metric.update(good, real=True)
        metric.update(bad, real=False)
        with pytest.raises(ValueError, match="not finite"):
            metric.compute()


def test_features_too_large_for_their_squares_give_no_distance() -> None:
    huge = points().double() * 1e160
    for distance in (TWO_SETS["frechet"], kernel_distance):
        with pytest.raises(ValueError, match=r"not finite|is (nan|inf|-inf)"):
            distance(huge, points(1).double())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_samples_and_centres_of_modes(value: float) -> None:
    samples = RING.repeat(5, 1)
    samples[3, 0] = value
    with pytest.raises(ValueError, match="1 of 15 samples hold NaN"):
        mode_coverage(samples, RING, 0.1)
    with pytest.raises(ValueError, match="1 of 15 samples hold NaN"):
        ModeCoverage(RING, 0.1).update(samples)
    with pytest.raises(ValueError, match="1 of 15 centres hold NaN"):
        mode_coverage(RING, samples, 0.1)
    with pytest.raises(ValueError, match=f"std is {value}"):
        mode_coverage(RING, RING, value)


def test_a_density_may_be_zero_but_neither_nan_nor_infinite() -> None:
    for metric, more in ((NegativeLogLikelihood(), ()), (BitsPerDim(), (4,))):
        metric.update(torch.tensor([-3.0, -math.inf]), *more)
        assert metric.compute() == math.inf
    for value, said in ((math.nan, "NaN"), (math.inf, r"\+∞")):
        for metric, more in ((NegativeLogLikelihood(), ()), (BitsPerDim(), (4,))):
            metric.update(torch.tensor([-3.0, value]), *more)
            for figure in (metric.compute, metric.standard_error):
                with pytest.raises(ValueError, match=f"log_prob is {said} for 1 of 2 data"):
                    figure()
    for dims in (math.inf, math.nan, 0.0, -2.0):
        with pytest.raises(ValueError, match="finite number of dimensions"):
            BitsPerDim().update(torch.zeros(2), torch.tensor([3.0, dims]))


def test_scores_and_data_of_anomalies() -> None:
    with pytest.raises(ValueError, match="1 of 5 anomaly scores are NaN"):
        auroc(torch.zeros(2), torch.tensor([1.0, 1.0, math.nan]))
    x = points()
    x[0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        PrincipalComponents([x])


def test_a_classifier_s_logits() -> None:
    class Data:
        def __init__(self) -> None:
            self.trainer = None

        def setup(self, stage: str) -> None: ...

        def test_dataloader(self) -> Any:
            return DataLoader(TensorDataset(points(), torch.zeros(40, dtype=torch.int64)), 40)

    class Undecided(nn.Module):
        device, dtype = torch.device("cpu"), torch.float32

        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), math.nan)

    with pytest.raises(ValueError, match="Undecided gives NaN for 40 of 40 data"):
        figures.accuracy(Undecided(), Data(), "test", lambda batches, what: batches)


def test_an_extractor_is_given_no_data_that_it_could_hide() -> None:
    class Clips(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.nan_to_num(0.0).clamp(0, 1)

    x = points()
    x[2] = math.nan
    with pytest.raises(ValueError, match="1 of 40 data or samples hold NaN"):
        FeatureExtractor(Clips())(x)


# ---- reference statistics on disk


def spoil_value(value: float, name: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        tensors = load_file(path)
        tensors[name].view(-1)[-1] = value
        tensors.pop("digest")  # as a file has none that an earlier version wrote
        save_file(tensors, path)

    return spoil


def replace(name: str, tensor: Tensor | None) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        tensors = {key: value for key, value in load_file(path).items() if key not in (name, "digest")}
        save_file(tensors if tensor is None else {**tensors, name: tensor}, path)

    return spoil


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # in the last digits of a number
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "no safetensors": lambda path: path.write_bytes(b"not a file of tensors at all"),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "a bit": flip_a_bit,
    **{f"nan {name}": spoil_value(math.nan, name) for name in ("mean", "scatter", "features")},
    **{f"inf {name}": spoil_value(math.inf, name) for name in ("mean", "scatter", "features")},
    **{f"no {name}": replace(name, None) for name in ("count", "mean", "scatter", "features")},
    "count": replace("count", torch.tensor(39)),
    "counts": replace("count", torch.tensor([40, 40])),
    "count 1.5": replace("count", torch.tensor(1.5)),
    "mean": replace("mean", torch.zeros(3, dtype=torch.float64)),
    "half mean": replace("mean", torch.zeros(2, dtype=torch.float16)),
    "scatter": replace("scatter", torch.zeros(2, 1, dtype=torch.float64)),
    "features": replace("features", torch.zeros(5, 3)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_reference_statistics_are_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    def look() -> tuple[FeatureStatistics, Tensor]:
        return real_features([points()], FeatureExtractor(nn.Flatten()), keep=10, cache_dir=tmp_path)

    first, kept = look()
    (path,) = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    DAMAGE[damage](path)
    assert path.read_bytes() != whole
    for times in (1, 1):  # said once: then the file is whole again
        again, kept_again = look()
        assert torch.equal(first.moments, again.moments) and torch.equal(kept, kept_again)
        said = [r.getMessage() for r in caplog.records if "computed again" in r.getMessage()]
        assert len(said) == times and "\n" not in said[0] and str(path) in said[0] and "is damaged" in said[0]
    assert path.read_bytes() == whole


def test_statistics_of_an_earlier_version_are_still_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    class Counts(nn.Flatten):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    extractor = FeatureExtractor(Counts())
    real_features([points()], extractor, cache_dir=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    replace("digest", None)(path)
    real_features([points()], extractor, cache_dir=tmp_path)
    assert calls == [40, 1] and not caplog.records  # one to see that the extractor is what it was


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "statistics").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be kept .* made anew: let GENZOO_CACHE name another folder"):
        found, _ = real_features([points()], FeatureExtractor(nn.Flatten()), cache_dir=tmp_path)
    assert found.count == 40
