"""The Fréchet distance against closed forms and against two other implementations."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genzoo.metrics import frechet
from genzoo.metrics.extractors import FeatureExtractor
from genzoo.metrics.features import real_features
from genzoo.metrics.frechet import FeatureStatistics, FrechetReference, frechet_distance, frechet_floor_error


def gaussian(mean: Tensor, covariance: Tensor) -> FeatureStatistics:
    """Statistics of features whose sample mean and covariance are exactly these."""
    return FeatureStatistics(101, mean.double(), covariance.double() * 100)


def rotation(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed)).double())[0]


@pytest.fixture
def two_sets() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(16, 16, generator=g)
    return torch.randn(400, 16, generator=g) @ mix, torch.randn(300, 16, generator=g) @ mix * 1.3 + 0.5


def test_one_dimension() -> None:
    a, b = gaussian(torch.tensor([1.0]), torch.tensor([[4.0]])), gaussian(torch.tensor([3.0]), torch.tensor([[9.0]]))
    assert frechet_distance(a, b) == pytest.approx((1 - 3) ** 2 + (2 - 3) ** 2, abs=1e-12)


def test_commuting_covariances() -> None:
    g = torch.Generator().manual_seed(1)
    one, two = torch.rand(8, generator=g).double() * 5, torch.rand(8, generator=g).double() * 5
    delta, axes = torch.randn(8, generator=g).double(), rotation(8, 2)
    a = gaussian(torch.zeros(8), axes @ one.diag() @ axes.T)
    b = gaussian(delta, axes @ two.diag() @ axes.T)
    expected = delta.square().sum() + (one.sqrt() - two.sqrt()).square().sum()
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-12)


def test_against_scipy_for_covariances_that_do_not_commute(two_sets: tuple[Tensor, Tensor]) -> None:
    from scipy.linalg import sqrtm

    x, y = (s.double().numpy() for s in two_sets)
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    means = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected = means + np.trace(c1) + np.trace(c2) - 2 * np.trace(sqrtm(c1 @ c2)).real
    assert frechet_distance(*map(FeatureStatistics.of, two_sets)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [400, 10])  # 10 features in 16 dimensions: a singular covariance
def test_of_a_set_with_itself_is_zero(two_sets: tuple[Tensor, Tensor], n: int) -> None:
    x = FeatureStatistics.of(two_sets[0][:n])
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9 * x.covariance.trace().item())


def test_symmetric_also_when_one_side_is_singular(two_sets: tuple[Tensor, Tensor]) -> None:
    x, y = two_sets
    for a, b in ((x, y), (x[:10], y), (x[:10], y[:7])):
        a_, b_ = FeatureStatistics.of(a), FeatureStatistics.of(b)
        assert frechet_distance(a_, b_) == pytest.approx(frechet_distance(b_, a_), rel=1e-7)


def test_singular_sides_agree_with_the_nuclear_norm(two_sets: tuple[Tensor, Tensor]) -> None:
    """tr (Σ₁ Σ₂)^½ = ‖X Yᵀ‖_* of the centred features, which needs no covariance at all."""
    x, y = (s[:9].double() for s in two_sets)
    cx, cy = x - x.mean(0), y - y.mean(0)
    cross = torch.linalg.svdvals(cx @ cy.T).sum() / 8
    expected = (x.mean(0) - y.mean(0)).square().sum() + (cx.square().sum() + cy.square().sum()) / 8 - 2 * cross
    assert frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y)) == pytest.approx(
        expected.item(), rel=1e-9
    )


def test_scales_with_the_square_and_ignores_rotation_shift_and_order(two_sets: tuple[Tensor, Tensor]) -> None:
    x, y = (s.double() for s in two_sets)
    distance = frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y))

    def of(change: object) -> float:
        return frechet_distance(FeatureStatistics.of(change(x)), FeatureStatistics.of(change(y)))  # type: ignore[operator]

    assert of(lambda s: 3 * s) == pytest.approx(9 * distance, rel=1e-9)
    assert of(lambda s: s @ rotation(16, 3) + 7) == pytest.approx(distance, rel=1e-9)
    assert of(lambda s: s.flip(0)) == pytest.approx(distance, rel=1e-9)


def test_sample_bias_is_the_known_one() -> None:
    """Two N-samples of N(0, I_d): E d² ≈ 2d/N + d(d + 1)/(2N)."""
    d, n = 32, 2000
    g = torch.Generator().manual_seed(4)
    draws = [
        frechet_distance(*(FeatureStatistics.of(torch.randn(n, d, generator=g)) for _ in range(2))) for _ in range(5)
    ]
    assert np.mean(draws) == pytest.approx(2 * d / n + d * (d + 1) / (2 * n), rel=0.1)


@pytest.mark.parametrize("block", [1, 5, 12, 256])  # rows of the scatter at a time, of 12
def test_streaming_equals_one_batch_where_the_mean_dwarfs_the_spread(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frechet, "BLOCK", block)
    x = torch.randn(1000, 12, generator=torch.Generator().manual_seed(5)) + 100
    streamed = FeatureStatistics.empty(12)
    for batch in x.split([1, 400, 0, 599]):
        streamed.update(batch)
    expected = torch.from_numpy(np.cov(x.double().numpy(), rowvar=False))
    assert streamed.count == 1000
    torch.testing.assert_close(streamed.covariance, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(streamed.mean, x.double().mean(0), rtol=1e-14, atol=0)
    assert torch.equal(streamed.scatter[block:, :block], streamed.scatter[:block, block:].T)


def test_updates_in_place_are_the_merge_of_the_parts() -> None:
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(7)).double() * 5 + 3
    streamed, parts = FeatureStatistics.empty(6), []
    memory = streamed.moments.data_ptr()
    for batch in x.split([7, 93, 200]):
        streamed.update(batch)
        parts.append(FeatureStatistics.of(batch))
    merged = FeatureStatistics.merged(part.moments for part in parts)
    assert streamed.moments.data_ptr() == memory and merged.count == streamed.count == 300
    torch.testing.assert_close(merged.scatter, streamed.scatter, rtol=1e-12, atol=0)
    torch.testing.assert_close(streamed.scatter, (x - x.mean(0)).T @ (x - x.mean(0)), rtol=1e-11, atol=1e-9)
    before = parts[0].moments.clone()
    merged.update(x)
    assert torch.equal(parts[0].moments, before)  # it shares no memory with them


def test_influence_is_the_derivative_in_a_datum_s_weight(two_sets: tuple[Tensor, Tensor]) -> None:
    """Against a finite difference: the set's Gaussian, mixed with a little of the datum."""
    x, y = (s.double() for s in two_sets)
    reference = FrechetReference(FeatureStatistics.of(x))

    def weighted(weight: Tensor) -> FeatureStatistics:
        mean = weight @ y
        return gaussian(mean, (y - mean).T @ ((y - mean) * weight[:, None]))

    influence = reference.influence(y.repeat(100, 1))[: len(y)]  # so that n − 1 is n
    equal = torch.full((len(y),), 1 / len(y), dtype=torch.float64)
    for i in (0, 17, 250):
        ends = []
        for step in (-1e-4, 1e-4):
            mixed = (1 - step) * equal
            mixed[i] += step
            ends.append(reference.distance(weighted(mixed)))
        slope = (ends[1] - ends[0]) / 2e-4
        assert slope == pytest.approx((influence[i] - influence.mean()).item(), rel=1e-4)


def test_the_floor_s_error_is_that_of_other_divisions(two_sets: tuple[Tensor, Tensor]) -> None:
    """Of sets of one distribution d² goes as 1/N + 1/M; the order in which the features come does not matter."""
    x, y = two_sets[0][:200], two_sets[0][200:]
    error = frechet_floor_error(x, y)
    assert error == pytest.approx(frechet_floor_error(x.flip(0), y.roll(3, 0)), rel=1e-9)
    assert frechet_floor_error(x, y, num_a=600) == pytest.approx(error * (1 / 600 + 1 / 200) / (2 / 200), rel=1e-12)


def test_save_and_load_give_the_same_bits(tmp_path: object, two_sets: tuple[Tensor, Tensor]) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "below" / "statistics.safetensors"
    saved = FeatureStatistics.of(two_sets[0])
    saved.save(path)
    loaded = FeatureStatistics.load(path)
    assert loaded.count == saved.count
    assert torch.equal(loaded.mean, saved.mean) and torch.equal(loaded.scatter, saved.scatter)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left


def test_bad_features_are_refused(two_sets: tuple[Tensor, Tensor]) -> None:
    x = two_sets[0]
    with pytest.raises(ValueError, match=r"matrix .* \(400, 4, 4\)"):
        FeatureStatistics.of(x.view(400, 4, 4))
    with pytest.raises(ValueError, match="1 of 400 feature vectors are not finite"):
        FeatureStatistics.of(torch.where(torch.arange(400)[:, None] == 3, torch.nan, x))
    with pytest.raises(ValueError, match="at least 2 feature vectors, but there are 1"):
        frechet_distance(FeatureStatistics.of(x[:1]), FeatureStatistics.of(x))
    with pytest.raises(ValueError, match="Features of 8 dimensions"):
        FrechetReference(FeatureStatistics.of(x)).distance(FeatureStatistics.of(x[:, :8]))


class Features(torch.nn.Module):
    """Features from images, for torchmetrics: it wants (B, d) float64 and a tensor to probe with."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(3 * 8 * 8, 16).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.float().flatten(1) / 255).double()


def test_equals_torchmetrics_and_torch_fidelity_on_the_same_features() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import FrechetInceptionDistance

    torch.manual_seed(6)
    extractor = Features()
    real = torch.randint(0, 256, (200, 3, 8, 8), dtype=torch.uint8)
    fake = torch.randint(0, 200, (150, 3, 8, 8), dtype=torch.uint8)
    ours = frechet_distance(FeatureStatistics.of(extractor(real)), FeatureStatistics.of(extractor(fake)))

    metric = FrechetInceptionDistance(feature=extractor, input_img_size=(3, 8, 8), antialias=False)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    assert ours == pytest.approx(metric.compute().item(), rel=1e-4)

    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(extractor(real)), fid_features_to_statistics(extractor(fake)), verbose=False
    )
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-9)


def test_features_of_real_data_in_bfloat16_are_kept_like_any() -> None:
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    found, _ = real_features([x], FeatureExtractor(nn.Flatten()))
    torch.testing.assert_close(found.mean, x.flatten(1).double().mean(0))
