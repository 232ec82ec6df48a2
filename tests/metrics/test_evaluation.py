"""The protocol of `evaluate`: which data are looked at, what a figure says of itself, and its errors."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import genzoo
from genzoo.callbacks import FrechetDistance
from genzoo.datamodules import DigitsDataModule, PointsDataModule
from genzoo.metrics import evaluate, figures, likelihood_of
from genzoo.metrics.anomalies import PrincipalComponents, auroc, auroc_error, flipped
from genzoo.metrics.data import Rows, spread
from genzoo.metrics.evaluation import DEPENDS, GROUPS, arguments_of, remeasured, unmeasured
from genzoo.metrics.figures import figure, floor
from genzoo.zoo import FSQ, GPT, VAE, Classifier, LatentModel, PerDatum, PixelCNN, QuantisedAutoencoder
from genzoo.zoo.hub import schema
from genzoo.zoo.hub.card import model_card


def named(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in metrics["figures"]}


def tiny(**options: Any) -> VAE:
    torch.manual_seed(0)
    return VAE((1, 8, 8), 17, network="mlp", width=8, latent_dim=2, **options).eval()


class Numbers(LightningDataModule):
    """The numbers from 0, in batches that are not alike."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total = total

    def test_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.arange(self.total)), batch_size=7)


def features() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh())


def digits(num: int) -> Tensor:
    data = DigitsDataModule()
    data.setup("test")
    return torch.cat(list(Rows(data, "test", num)))


# ---- which data


@pytest.mark.parametrize(("limit", "says"), [(None, "31 data of"), (31, "31 data of"), (99, "31 data of")])
def test_all_of_a_split(limit: int | None, says: str) -> None:
    rows = Rows(Numbers(31), "test", limit)
    for _ in range(2):  # from the beginning
        assert torch.cat(list(rows)).tolist() == list(range(31))
    assert str(rows) == f"{says} the test split"


@pytest.mark.parametrize("limit", [1, 2, 7, 10, 30])
def test_a_part_of_a_split_is_spread_over_it(limit: int) -> None:
    rows = Rows(Numbers(31), "test", limit)
    assert torch.cat(list(rows)).tolist() == [i * 31 // limit for i in range(limit)]
    assert str(rows) == f"{limit} data spread evenly over the test split"


@pytest.mark.parametrize(("processes", "sizes"), [(1, [7, 7, 1]), (3, [5, 5, 5]), (20, [1] * 15)])
def test_a_part_of_a_split_comes_in_full_batches(
    processes: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No larger than the loader's, and one for each process at least."""
    monkeypatch.setattr("genzoo.metrics.data.world_size", lambda: processes)
    assert [len(x) for x in Rows(Numbers(31), "test", 15)] == sizes


def test_data_of_several_shapes_are_in_batches_of_their_own() -> None:
    class Texts(Numbers):
        def test_dataloader(self) -> list[list[Tensor]]:
            return [[torch.zeros(4, length) for length in (5, 5, 8, 5)]]

    assert [tuple(x.shape) for x in Rows(Texts(16), "test", 8)] == [(4, 5), (2, 8), (2, 5)]


def test_nothing_of_nothing() -> None:
    assert spread(0, 5).tolist() == [] and spread(3, 0).tolist() == [False] * 3


def test_anomalies_are_told_among_data_spread_over_the_split() -> None:
    model, data = tiny(), DigitsDataModule()
    found = named(evaluate(model, data, num_odd=50, odd=["flipped"], only=["anomaly"], progress=False))[
        "auroc_flipped"
    ]
    x = torch.cat([x for x, _ in data.test_dataloader()])[torch.arange(50) * 360 // 50]
    odd = flipped(x, 17)
    scores = [model.anomaly_score(part).double() for part in (x, odd)]
    assert found["value"] == pytest.approx(auroc(*scores), abs=1e-12)
    assert found["standard_error"] == pytest.approx(auroc_error(*scores, paired=True), rel=1e-9)
    assert "50 data spread evenly over the test split against the same images made flipped" in found["protocol"]
    data.setup("fit")
    components = PrincipalComponents(Rows(data, "train"))
    trivial = [components.score(part) for part in (x, odd)]
    assert found["floor"] == pytest.approx(auroc(*trivial), abs=1e-12)
    assert found["floor_standard_error"] == pytest.approx(auroc_error(*trivial, paired=True), rel=1e-9)
    assert found["floor_protocol"].endswith(f"of {sum(map(len, Rows(data, 'train')))} data of the train split")


# ---- what a figure says of itself


def test_it_shows_how_far_it_is_also_below_the_bar_of_a_training() -> None:
    """`Publish` measures while that of the Trainer still stands, beside which older versions of rich allow none."""
    with Progress():
        found = evaluate(tiny(), DigitsDataModule(), num_likelihood=3, only=["likelihood"], progress=True)
    assert "nll" in named(found)


def test_the_time_of_a_sample_is_that_of_the_second_call_over_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now, took = [100.0], iter([50.0, 6.4])  # of which the first also allocates
    monkeypatch.setattr(figures.time, "perf_counter", lambda: now[0])

    class Slow(nn.Module):
        network_evaluations = 7

        def sample(self, num_samples: int) -> Tensor:
            now[0] += next(took)
            return torch.zeros(num_samples, 1)

    time, evaluations = figures.sampling(Slow(), 0, torch.device("cpu"))  # type: ignore[arg-type]
    assert (time["name"], time["unit"]) == ("sampling_time", "s/sample")
    assert time["value"] == pytest.approx(6.4 / 64) and time["num_examples"] == 64
    assert evaluations["value"] == 7


def test_each_score_of_samples_has_its_error_and_the_distance_its_floor_s() -> None:
    found = named(evaluate(tiny(), DigitsDataModule(), extractor=features(), num_samples=100, progress=False))
    for name in ("nll", "bits_per_dim", "frechet", "kid", "precision", "recall", "density", "coverage"):
        if 0 < found[name]["value"] < 1 or name not in ("precision", "recall", "coverage"):
            assert found[name]["standard_error"] > 0, name
    assert "standard_error" not in found["parameters"] and "standard_error" not in found["sampling_time"]
    assert 0 < found["frechet"]["floor_standard_error"] < found["frechet"]["value"]
    assert found["frechet"]["unit"] == "squared feature distance" and found["kid"]["unit"] == "squared MMD"
    assert found["frechet"]["protocol"].endswith("against 360 data of the test split")
    assert found["kid"]["protocol"].endswith(
        "against 100 data spread evenly over the test split; cubic kernel, all pairs"
    )
    assert found["recall"]["protocol"].endswith("spread evenly over the test split; k = 5")
    says = "100 real data spread evenly over the train split in place of the samples"
    assert found["frechet"]["floor_protocol"] == says


def test_an_error_of_nothing_is_no_error() -> None:
    assert "standard_error" not in figure("recall", 1.0, "share", "", error=0.0)
    assert "standard_error" not in figure("nll", 1.0, "nats", "", error=math.nan)
    assert "floor_standard_error" not in floor(1.0, 0.0, "", "")


def test_the_card_shows_a_floor_with_its_spread() -> None:
    made = figure("frechet", 5.0, "d", "so", error=0.25) | floor(3.4, 0.92, "real against real", "")
    config = {
        "name": "a/b",
        "model": {"class_path": "x.VAE"},
        "weights": {"parameters": 1, "dtype": "", "sha256": ""},
    }
    assert "| 5 ± 0.25 (real against real: 3.4 ± 0.92) |" in model_card("a/b", config, {"figures": [made]})


@pytest.mark.parametrize("prior", ["training", "uniform"])
def test_of_a_conditional_model_it_says_how_its_classes_are_weighed(prior: str) -> None:
    torch.manual_seed(0)
    model = PixelCNN((1, 8, 8), 17, channels=4, depth=1, num_classes=10, conditional=True)
    model.class_prior = prior
    model.count_classes(torch.arange(10))
    options = {"num_likelihood": 5, "num_samples": 30, "extractor": features(), "progress": False}
    found = named(evaluate(model, DigitsDataModule(), only=["likelihood", "closeness"], **options))
    weighted = {"training": "by their shares in the training data", "uniform": "uniformly"}[prior]
    assert f"p(x) is the mean of p(x | class), the classes weighted {weighted}; mean over" in found["nll"]["protocol"]
    assert f"30 samples of classes drawn {weighted}, seed 0" in found["frechet"]["protocol"]


def test_a_model_says_itself_what_its_bound_is() -> None:
    class Says(VAE):
        log_prob_protocol = "all 4 terms of the bound"

    model = Says((1, 8, 8), 17, network="mlp", width=8, latent_dim=2)
    found = named(evaluate(model, DigitsDataModule(), num_particles=2, num_likelihood=5, only=["likelihood"]))
    says = "upper bound on −log p(x) with 2 draws, seed 0; all 4 terms of the bound"
    assert found["nll"]["protocol"] == f"{says}; mean over 5 data spread evenly over the split"
    assert found["bits_per_dim"]["protocol"] == f"nll / (D ln 2); {says}"
    vae = named(evaluate(tiny(), DigitsDataModule(), num_particles=2, num_likelihood=5, only=["likelihood"]))
    assert "with 2 samples of the latents, seed 0; mean" in vae["nll"]["protocol"]


def test_bits_are_those_of_the_dimensions_that_count() -> None:
    """Each image counts its rows down to the last one with ink; the error is that of the ratio of two means."""

    class Cropped(VAE):
        def num_observed(self, x: Tensor) -> Tensor:
            rows = torch.arange(1, 9, device=x.device) * (x.flatten(1, 2).sum(2) > 0)
            return rows.max(1).values * 8

    torch.manual_seed(0)
    model = Cropped((1, 8, 8), 17, network="mlp", width=8, latent_dim=2).eval()
    x = digits(101)
    x[::2, :, 5:] = 0
    with torch.no_grad():
        result = likelihood_of(model, x.split(16), num_particles=3)
        nll = -model.log_prob(x, num_particles=3, generator=PerDatum(x)).double()
    dims = model.num_observed(x).double()
    assert dims.min() < dims.max()
    assert result.nll == pytest.approx(nll.mean().item(), rel=1e-6)
    bits = (nll.sum() / dims.sum() / math.log(2)).item()
    assert result.bits_per_dim == pytest.approx(bits, rel=1e-6)
    jackknife = torch.stack(
        [(nll.sum() - a) / (dims.sum() - d) / math.log(2) for a, d in zip(nll, dims, strict=True)]
    )
    expected = (100 / 101 * (jackknife - jackknife.mean()).square().sum()).sqrt().item()
    assert result.bits_per_dim_error == pytest.approx(expected, rel=0.02)
    with torch.no_grad():
        plain = likelihood_of(tiny(), x.split(16), num_particles=3)
    assert plain.bits_per_dim == pytest.approx(plain.nll / 64 / math.log(2), rel=1e-12)
    assert plain.bits_per_dim_error == pytest.approx(plain.standard_error / 64 / math.log(2), rel=1e-12)


# ---- which arguments


def test_what_is_measured_depends_on_arguments_that_are_known() -> None:
    everything = {"split", "seed", "num_particles", "num_likelihood", "num_samples", "extractor", "num_odd"}
    assert set().union(*DEPENDS.values()) == everything
    options = {"extractor": features(), "num_samples": 30, "num_likelihood": 5, "num_odd": 5, "progress": False}
    found = named(evaluate(tiny(), DigitsDataModule(), only=GROUPS, **options))
    points = PointsDataModule("ring", train_size=100, val_size=20, test_size=20)
    found |= named(evaluate(VAE((2,), None, latent_dim=2, width=8, depth=1), points, num_samples=50, progress=False))
    known = {pattern.rstrip("*") for names in DEPENDS for pattern in names}
    for name in found:
        assert any(name == one or (one.endswith("_") and name.startswith(one)) for one in known), name
    assert arguments_of("nll") == {"split", "seed", "num_particles", "num_likelihood"}
    assert arguments_of("auroc_fashionmnist") == {"split", "seed", "num_odd"}
    assert arguments_of("frechet") == arguments_of("fid") == {"split", "seed", "num_samples", "extractor"}
    assert arguments_of("parameters") == arguments_of("sampling_time") == set()
    assert arguments_of("of a later version") >= everything  # so that nothing unknown is taken for comparable


def test_too_few_samples_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(ValueError, match="num_samples is 5, but distances are those of at least 6 samples"):
        evaluate(genzoo.load("digits/made"), DigitsDataModule(), num_samples=5, progress=False)


class Images(LightningDataModule):
    """Noise: so many images of a split, or no such split."""

    def __init__(self, shape: tuple[int, ...] = (1, 8, 8), levels: int | None = 17, **splits: int) -> None:
        super().__init__()
        self.shape, self.levels = shape, levels
        for seed, (split, num) in enumerate(splits.items()):
            x = torch.randint(17, (num, *shape), generator=torch.Generator().manual_seed(seed)) / 16
            setattr(self, f"{split}_dataloader", lambda x=x: DataLoader(x, 8))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"odd": Images((1, 9, 9), test=20)},
            r"data are of shape \(1, 8, 8\), but those of odd, Images, of \(1, 9, 9\)",
        ),
        ({"odd": Images(train=20)}, "Images has no test_dataloader"),
    ],
)
def test_odd_data_that_cannot_be_compared_are_refused_before_anything_is_measured(
    asked: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VAE, "log_prob", lambda *_, **__: pytest.fail("was measured"))
    with pytest.raises(ValueError, match=says):
        evaluate(tiny(), Images(train=20, test=20), progress=False, extractor=features(), num_samples=20, **asked)


@pytest.mark.parametrize("splits", [{"test": 20}, {"train": 1, "test": 20}])
def test_without_other_data_there_is_no_floor_and_that_is_said(splits: dict[str, int]) -> None:
    with pytest.warns(UserWarning) as said:
        found = named(
            evaluate(
                tiny(),
                Images(**splits),
                extractor=features(),
                num_samples=20,
                num_odd=20,
                only=["closeness", "anomaly"],
                progress=False,
            )
        )
    assert {"frechet", "precision", "auroc_flipped"} <= found.keys() and "memorisation" not in found
    assert not any(name.startswith("floor") for figure in found.values() for name in figure)
    told = [str(warning.message) for warning in said if "without" in str(warning.message)]
    why = "has no train_dataloader" if "train" not in splits else "the train split has 1 data"
    assert len(told) == 2 and all(why in one for one in told)


def test_a_floor_that_no_file_can_state_is_left_out() -> None:
    """The density of data at a point where it is 0."""
    data = Images((2,), None, train=20, test=20)
    data.log_density = lambda x: torch.full((len(x),), -torch.inf)  # type: ignore[attr-defined]
    model = VAE((2,), None, width=8, latent_dim=2).eval()
    with pytest.warns(UserWarning, match="floor of nll is inf"):
        found = named(evaluate(model, data, only=["likelihood"], progress=False))["nll"]
    assert math.isfinite(found["value"]) and not any(name.startswith("floor") for name in found)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255), (3, 5)])
def test_a_signal_to_noise_ratio_is_relative_to_the_span_of_the_data(low: float, high: float) -> None:
    """Noise of a tenth of it is 20 dB, in whatever unit."""

    class Shifted(QuantisedAutoencoder):
        def reconstruct(self, x: Tensor) -> Tensor:
            return x + 0.1 * (high - low)

    data = Images(levels=None, test=20)
    x = next(iter(data.test_dataloader()))
    data.test_dataloader = lambda: DataLoader(low + (high - low) * x, 8)  # type: ignore[method-assign]
    assert (x.min(), x.max()) == (0, 1)
    module = Shifted((1, 8, 8), None, factor=2, width=4).eval()
    found = named(evaluate(module, data, only=["codes"], progress=False))["psnr"]
    assert found["value"] == pytest.approx(20, abs=1e-3) and "largest value less the smallest" in found["protocol"]


def test_an_extractor_is_no_part_of_what_it_judges() -> None:
    """Which would not be trained any more."""
    model = tiny()
    for extractor, fits in (
        (nn.Sequential(model.encoder), False),
        (copy.deepcopy(nn.Sequential(model.encoder)), True),
    ):
        given = {"extractor": extractor, "num_samples": 20, "only": ["closeness"], "progress": False}
        if fits:
            evaluate(model, Images(train=20, test=20), **given)
            continue
        with pytest.raises(ValueError, match="Sequential is a part of VAE"):
            evaluate(model, Images(train=20, test=20), **given)
        callback = FrechetDistance(extractor, num_samples=20)
        with pytest.raises(ValueError, match="Sequential is a part of VAE"):
            trainer = Trainer(max_epochs=1, callbacks=[callback], logger=False, enable_checkpointing=False)
            trainer.fit(model, datamodule=DigitsDataModule(limit=60))
        assert all(parameter.requires_grad for parameter in model.parameters())  # it is to be trained further


@pytest.mark.parametrize("many", [False, True])
def test_components_are_no_more_than_few_data_have(many: bool) -> None:
    """Their order is of no matter, nor is that of the pixels: what is in the null space is not a component."""
    data = torch.randn(200 if many else 4, 16, generator=torch.Generator().manual_seed(0)) @ torch.randn(16, 16)
    x, order = torch.randn(30, 16), torch.randperm(16)
    ours, theirs = (PrincipalComponents([rows]) for rows in (data, data[:, order]))
    assert ours.num_components == (4 if many else 3)
    torch.testing.assert_close(ours.score(x), theirs.score(x[:, order]), rtol=1e-8, atol=1e-8)
    centred = (data - data.mean(0)).double()
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[: ours.num_components]
    off = (x - data.mean(0)).double()
    torch.testing.assert_close(ours.score(x), (off - off @ basis.T @ basis).square().sum(1), rtol=1e-4, atol=1e-4)


def test_figures_that_stay_say_what_they_were_measured_with() -> None:
    def measured(commit: str, **values: float) -> dict[str, Any]:
        figures = [{"name": name, "value": value, "unit": "nats"} for name, value in values.items()]
        return {"figures": figures, "evaluation": {}, "environment": {"commit": commit, "torch": "2"}}

    first = {**measured("a", nll=1.0, frechet=2.0, kid=3.0), "training": {"environment": {"commit": "0"}}}
    second = remeasured(first, measured("b", frechet=2.5), "it")
    third = remeasured(second, measured("c", kid=3.5), "it")
    assert [(f["name"], f["value"], f.get("environment", {}).get("commit", "c")) for f in third["figures"]] == [
        ("nll", 1.0, "a"),
        ("frechet", 2.5, "b"),
        ("kid", 3.5, "c"),
    ]
    schema.checked(third, schema.METRICS, Path("metrics.json"))
    config = {"name": "a/b", "model": {"class_path": "VAE"}, "weights": {"parameters": 1, "dtype": "", "sha256": ""}}
    card = model_card("a/b", config, third)
    assert "- with: commit 0\n" in card and "Measured with commit c, torch 2.\n" in card
    assert "But nll with commit a, torch 2.\nBut frechet with commit b, torch 2.\n" in card


def test_what_is_to_be_measured_later_can_be_measured() -> None:
    """Of a tokenizer, which draws no samples, too: its data state an extractor, which it has no use for."""
    data = DigitsDataModule(limit=60)
    module = QuantisedAutoencoder(data.shape, data.levels, factor=2, width=4)
    assert "extractor" in data.protocol
    later = unmeasured(module, data)["evaluation"]
    measured = evaluate(module, data, only=["sampling", "closeness"], **later)
    assert [figure["name"] for figure in measured["figures"]] == ["parameters"]
    assert measured["evaluation"] == later and "extractor" not in later


@pytest.mark.parametrize("two_stages", [False, True])
def test_a_card_says_how_the_codes_are_used(two_stages: bool) -> None:
    """Counted one image after another, of a tokenizer and of the model that writes in its codes."""
    data = DigitsDataModule(limit=60)
    tokenizer = QuantisedAutoencoder(data.shape, data.levels, factor=2, width=4, quantiser=FSQ([4, 3]))
    module = LatentModel(data.shape, data.levels, autoencoder=tokenizer, prior=GPT) if two_stages else tokenizer
    measured = {f["name"]: f for f in evaluate(module, data, only=["codes"], split="val")["figures"]}
    seen = [code for x in Rows(data, "val") for one in x for code in tokenizer.codes(one[None]).flatten().tolist()]
    shares = [seen.count(code) / len(seen) for code in set(seen)]
    assert measured["codebook_usage"]["value"] == pytest.approx(len(set(seen)) / 12)
    assert measured["codebook_perplexity"]["value"] == pytest.approx(math.exp(-sum(s * math.log(s) for s in shares)))
    assert measured["codebook_usage"]["num_examples"] == len(seen) / math.prod(tokenizer.grid) > 0
    x = torch.cat(list(Rows(data, "val"))).double()
    again = tokenizer.decode_codes(tokenizer.codes(x.float())).double()
    assert measured["psnr"]["value"] == pytest.approx(10 * math.log10(1 / float((x - again).square().mean())))
    each = (x - again).square().flatten(1).mean(1)
    one_more = 10 * math.log10(float(each.mean() + each.std() / len(each) ** 0.5) / float(each.mean()))
    assert measured["psnr"]["standard_error"] == pytest.approx(one_more, rel=0.1)  # to first order


def test_a_bound_of_as_many_draws_as_the_model_likes_states_none() -> None:
    class OfOneDraw(VAE):
        def log_prob(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().log_prob(x)

    (nll, *_) = figures.likelihood(
        OfOneDraw((1, 8, 8), 17, latent_dim=2, network="mlp", width=4, depth=1).eval(),
        DigitsDataModule(limit=100),
        "test",
        100,
        None,
        0,
        lambda items, what: items,
    )
    assert "upper bound on −log p(x), seed 0" in nll["protocol"]


@pytest.mark.parametrize(
    "as_batch", [lambda x, y: {"x": x, "y": y}, lambda x, y: (x, y, "more"), lambda x, y: (x, y)]
)
def test_an_accuracy_is_of_batches_of_any_kind(as_batch: Any) -> None:
    class Labelled(LightningDataModule):
        def test_dataloader(self) -> list[Any]:
            x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
            return [[as_batch(x[:6], torch.zeros(6).long()), as_batch(x[6:], torch.ones(6).long())]]

    model = Classifier((1, 8, 8), 17, num_classes=2).eval()
    (found,) = figures.accuracy(model, Labelled(), "test", lambda items, what: items)
    x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert found["value"] == pytest.approx(float((model(x).argmax(1) == torch.arange(12) // 6).double().mean()))


def test_an_accuracy_without_labels_is_refused() -> None:
    class Bare(LightningDataModule):
        def test_dataloader(self) -> list[Any]:
            return [[torch.rand(6, 1, 8, 8)]]

    with pytest.raises(ValueError, match="the test split have no labels, of which an accuracy is"):
        figures.accuracy(Classifier((1, 8, 8), 17, num_classes=2).eval(), Bare(), "test", lambda items, what: items)


def test_data_one_after_the_other_have_a_floor_where_they_end() -> None:
    class Stream(IterableDataset):
        def __init__(self, seed: int) -> None:
            self.seed = seed

        def __iter__(self) -> Any:
            return iter(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(self.seed)))

    class Streams(LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            return DataLoader(Stream(0), 16)

        def test_dataloader(self) -> DataLoader:
            return DataLoader(Stream(1), 16)

    measured = evaluate(tiny(), Streams(), extractor=nn.Flatten(), num_samples=64, only=["closeness"], progress=False)
    assert named(measured)["frechet"]["floor"] > 0 and "memorisation" in named(measured)
