"""The area under the ROC curve, and the odd images that it is measured on."""

import pytest
import torch

import genzoo.metrics.anomalies
from genzoo.metrics.anomalies import ODD, PrincipalComponents, auroc, auroc_error, faint, shuffled
from genzoo.zoo.modality import check_data


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    g = torch.Generator().manual_seed(0)
    usual, odd = torch.randint(6, (40,), generator=g).float(), torch.randint(2, 8, (30,), generator=g).float()
    pairs = (odd[:, None] > usual).double() + 0.5 * (odd[:, None] == usual).double()
    assert auroc(usual, odd) == pytest.approx(pairs.mean().item(), abs=1e-12)
    assert auroc(odd, usual) == pytest.approx(1 - pairs.mean().item(), abs=1e-12)
    assert auroc(usual.exp() - 90, odd.exp() - 90) == auroc(usual, odd)  # any increasing map


def test_auroc_is_scikit_learn_s() -> None:
    from sklearn.metrics import roc_auc_score

    g = torch.Generator().manual_seed(1)
    usual, odd = torch.randn(300, generator=g), (torch.randn(200, generator=g) + 0.7).round(decimals=1)
    target = torch.cat([torch.zeros(300), torch.ones(200)])
    expected = roc_auc_score(target.numpy(), torch.cat([usual, odd]).numpy())
    assert auroc(usual, odd) == pytest.approx(expected, abs=1e-12)


def test_the_error_is_delong_s() -> None:
    """With the placements counted pair by pair; and where odd data are made from usual ones, over the pairs."""
    g = torch.Generator().manual_seed(2)
    usual = torch.randint(9, (40,), generator=g).double()
    odd = usual + torch.randint(-2, 6, (40,), generator=g)
    order = (odd[:, None] > usual).double() + 0.5 * (odd[:, None] == usual).double()  # (odd, usual)
    by_usual, by_odd = order.mean(0), order.mean(1)
    separate = (by_usual.var() / 40 + by_odd.var() / 40).sqrt()
    assert auroc_error(usual, odd) == pytest.approx(separate.item(), rel=1e-12)
    covariance = torch.cov(torch.stack([by_usual, by_odd]))[0, 1]
    together = (separate**2 + 2 * covariance / 40).sqrt()
    assert auroc_error(usual, odd, paired=True) == pytest.approx(together.item(), rel=1e-12)
    assert abs(together - separate) > 0.1 * separate
    with pytest.raises(ValueError, match="40 usual scores and 39 odd"):
        auroc_error(usual, odd[1:], paired=True)


def test_auroc_at_its_ends() -> None:
    low, high = torch.arange(5.0) + 90, torch.arange(3.0) + 100
    assert auroc(low, high) == 1.0 and auroc(high, low) == 0.0
    assert auroc(torch.ones(4), torch.ones(7)) == 0.5


def test_auroc_refuses_what_has_no_order() -> None:
    with pytest.raises(ValueError, match="1 of 4 anomaly scores are NaN"):
        auroc(torch.ones(2), torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match="two vectors of scores"):
        auroc(torch.ones(2), torch.ones(0))


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(("shape", "levels"), [((1, 8, 8), 17), ((1, 28, 28), 2), ((3, 32, 30), 256)])
def test_odd_images_are_data_of_the_same_kind_and_depend_on_the_image_alone(name: str, shape, levels: int) -> None:
    x = torch.randint(levels, (6, *shape), generator=torch.Generator().manual_seed(0)) / (levels - 1)
    odd = ODD[name](x, levels)
    check_data(odd, shape, levels, {torch.float32}, "the test")
    assert not torch.equal(odd, x)
    assert torch.equal(ODD[name](x[4:], levels), odd[4:])


@pytest.mark.parametrize("height", [6, 7])
def test_erased_images_are_black_below_and_flipped_ones_upside_down(height: int) -> None:
    x = (torch.arange(2 * height * 5).view(2, 1, height, 5) % 255 + 1) / 255  # nothing is black
    half = height // 2
    erased = ODD["erased"](x, 256)
    assert torch.equal(erased[..., :half, :], x[..., :half, :]) and not erased[..., half:, :].any()
    upside_down = [list(reversed(image)) for image in x[:, 0].tolist()]
    assert ODD["flipped"](x, 256)[:, 0].tolist() == upside_down


def test_faint_images_have_a_quarter_of_the_ink() -> None:
    grey = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert (faint(grey.mul(255).round() / 255, 256).mean() / grey.mean()).item() == pytest.approx(0.25, rel=0.02)
    binary = (grey > 0.3).float()
    assert (faint(binary, 2).mean() / binary.mean()).item() == pytest.approx(0.25, rel=0.1)
    assert bool((faint(binary, 2) <= binary).all())


def test_shuffled_images_are_their_patches_in_another_order() -> None:
    x = torch.arange(2 * 64.0).view(2, 1, 8, 8) / 128
    for before, after in zip(x, shuffled(x, 256), strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)
        patches = [tuple(p.flatten().tolist()) for image in (before, after) for p in _patches(image[0], 2)]
        assert set(patches[:16]) == set(patches[16:]) and patches[:16] != patches[16:]


def _patches(image: torch.Tensor, size: int) -> list[torch.Tensor]:
    return [patch for row in image.split(size) for patch in row.split(size, 1)]


def test_principal_components_leave_what_is_off_their_plane() -> None:
    g = torch.Generator().manual_seed(0)
    plane, _ = torch.linalg.qr(torch.randn(16, 16, generator=g, dtype=torch.float64))
    codes = torch.randn(200, 4, generator=g, dtype=torch.float64) * 5
    x = (codes @ plane[:4] + 3).view(200, 1, 4, 4)
    pca = PrincipalComponents(x.split(64), num_components=32)  # at most a quarter of 16 dimensions
    assert pca.num_components == 4
    assert pca.score(x).max() < 1e-18
    away = x + 2 * plane[7].view(1, 4, 4)
    torch.testing.assert_close(pca.score(away), torch.full((200,), 4.0, dtype=torch.float64))


def test_principal_components_of_large_data_are_those_of_the_whole_decomposition(monkeypatch) -> None:
    """Where the covariance is not held: the same plane as by it, and so the same scores."""
    g = torch.Generator().manual_seed(0)
    scales = torch.logspace(1, -1, 64)
    x = (torch.randn(500, 64, generator=g) * scales @ torch.linalg.qr(torch.randn(64, 64, generator=g)).Q + 3).view(
        500, 1, 8, 8
    )
    whole = PrincipalComponents(x.split(64), num_components=8)
    monkeypatch.setattr(genzoo.metrics.anomalies, "MOST_DIMENSIONS", 63)
    part = PrincipalComponents(x.split(64), num_components=8)
    assert part.components.shape == whole.components.shape
    torch.testing.assert_close(part.score(x), whole.score(x), rtol=1e-3, atol=1e-3)
    assert torch.equal(part.score(x), PrincipalComponents(x.split(100), num_components=8).score(x))


def test_principal_components_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no training data"):
        PrincipalComponents([])


@pytest.mark.parametrize("size", [10, 5000])
def test_principal_components_of_one_datum_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        PrincipalComponents([torch.rand(1, size)])
