"""Columns in the user's own units: what a model says of x = μ + σ y is what it says of y without units."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CASES, Case
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

import genzoo
from genzoo.callbacks import EMA
from genzoo.datamodules import DataModule, InMemory
from genzoo.metrics.data import to_module
from genzoo.zoo import DDPM, GAN, MADE, VAE, Autoencoder, DenoisingAutoencoder, FlowMatching, ScoreModel
from genzoo.zoo.hub import load_checkpoint, publish
from genzoo.zoo.interface import Completes, HasLatents, HasLogProb, Interpolates, Inverts, Samples, SamplesInSteps
from genzoo.zoo.modality import modality, unusual_scale

#: powers of two, so that nothing is rounded on the way to standard units and back
MEAN, STD = torch.tensor([1024.0, -16.0]), torch.tensor([32768.0, 0.0078125])
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}

POINTS = [case for case in CASES if modality(case.shape, case.levels) == "points"]
POINTS += [
    Case(Autoencoder, (2,), None, frozenset(), {"density_components": 2}),
    Case(FlowMatching, (2,), None, frozenset(), {"num_classes": 3, "conditional": True}),
    Case(GAN, (2,), None, frozenset(), {"num_classes": 3, "conditional": True}),
    Case(DDPM, (2,), None, frozenset(), {"data_scale": 2.0}),
]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pair(case: Case) -> tuple[Any, Any]:
    """A model without units, with weights that say something, and the same one with them."""
    plain = case.build().double().eval()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=seeded(), dtype=torch.float64))
    if getattr(plain, "density", None) is not None:
        plain.fit_density(case.data(64).double())
    own = copy.deepcopy(plain)
    if hasattr(plain, "sample") and "density_components" in case.options:
        own._offer_sampling()  # a copy of a bound method is bound to what was copied
    own.standardise(MEAN, STD)
    return plain, own


def to_own(y: Tensor) -> Tensor:
    return MEAN + STD * y


def assert_close(own: Tensor, plain: Tensor) -> None:
    """Data of the one beside those of the other, in standard units."""
    torch.testing.assert_close((own - MEAN) / STD, plain, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("case", POINTS, ids=str)
def test_samples_and_likelihoods_are_in_the_users_units(case: Case) -> None:
    plain, own = pair(case)
    y = case.data(6).double()
    x, log_volume = to_own(y), float(STD.log().sum())
    if isinstance(plain, Samples):
        assert_close(own.sample(5, generator=seeded()), plain.sample(5, generator=seeded()))
    if isinstance(plain, SamplesInSteps) and not isinstance(plain, MADE):  # whose frames are 0 where nothing is drawn
        frames = [model.sample_path(5, num_frames=3, generator=seeded()) for model in (own, plain)]
        assert_close(*frames)
    if isinstance(plain, HasLogProb):
        ours, theirs = (
            model.log_prob(data, num_particles=4, generator=seeded()) for model, data in ((own, x), (plain, y))
        )
        torch.testing.assert_close(ours, theirs - log_volume, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("case", POINTS, ids=str)
def test_training_is_the_same_but_for_the_density_of_the_units(case: Case) -> None:
    plain, own = pair(case)
    y, labels = case.data(6).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    losses = []
    for model, data in ((own, to_own(y)), (plain, y)):
        torch.manual_seed(0)
        losses.append(model.objective(data, labels)["loss"])
        losses[-1].mean().backward()
    log_volume = float(STD.log().sum()) if case.family in (VAE, MADE, Autoencoder, DenoisingAutoencoder) else 0.0
    torch.testing.assert_close(losses[0], losses[1] + log_volume, atol=2e-3, rtol=1e-4)
    for ours, theirs in zip(own.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("case", POINTS, ids=str)
def test_every_other_capability_answers_in_the_users_units(case: Case) -> None:
    plain, own = pair(case)
    y = case.data(4).double()
    x, known = to_own(y), torch.tensor([True, False])
    if isinstance(plain, Completes):
        out = own.complete(x, known, num_samples=2, generator=seeded())
        assert torch.equal(out[..., 0], x[:, 0].expand(2, -1))
        assert_close(out, plain.complete(y, known, num_samples=2, generator=seeded()))
    if isinstance(plain, Interpolates):
        assert_close(own.interpolate(x[:2], x[2:], 3), plain.interpolate(y[:2], y[2:], 3))
    if isinstance(plain, Inverts):
        torch.testing.assert_close(own.invert(x), plain.invert(y), atol=2e-3, rtol=1e-3)
    if hasattr(plain, "generate") and not isinstance(plain, GAN):
        assert_close(own.generate(y), plain.generate(y))
    if isinstance(plain, HasLatents):
        z = plain.encode(y).mean
        torch.testing.assert_close(own.encode(x).mean, z, atol=1e-4, rtol=1e-4)
        assert_close(own.decode(z).mean, plain.decode(z).mean)
        assert_close(own.decode(z).sample(seeded()), plain.decode(z).sample(seeded()))
        assert_close(own.reconstruct(x), plain.reconstruct(y))
        assert_close(own.traverse(x, 0, [-1.0, 1.0]), plain.traverse(y, 0, [-1.0, 1.0]))


@pytest.mark.parametrize("case", POINTS, ids=str)
def test_anomaly_scores_do_not_depend_on_the_units(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distance would be that of the column with the greatest numbers; a density differs by a constant.

    Noise of the datum's bytes would be other noise in other units, so it is the same for all.
    """
    monkeypatch.setattr("genzoo.zoo.diffusion.base.PerDatum", lambda x: seeded())
    plain, own = pair(case)
    own.anomaly_levels = plain.anomaly_levels = (4.0,)
    y = case.data(6).double()
    scores = own.anomaly_score(to_own(y)), plain.anomaly_score(y)
    distances = case.family in (GAN, DDPM, ScoreModel, FlowMatching)
    shift = 0.0 if distances else float(STD.log().sum())
    torch.testing.assert_close(scores[0], scores[1] + shift, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("family", [ScoreModel, DenoisingAutoencoder])
def test_the_score_is_the_gradient_by_the_users_units(family: Any) -> None:
    """∇_x = ∇_y / σ."""
    plain, own = pair(Case(family, (2,), None, frozenset()))
    y = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    given = {"t": torch.tensor(0.5, dtype=torch.float64)} if family is ScoreModel else {}
    torch.testing.assert_close(own.score(to_own(y), **given) * STD, plain.score(y, **given), atol=1e-4, rtol=1e-4)


def test_a_density_in_the_users_units_integrates_to_one() -> None:
    model = MADE((1,), None, width=8).eval()
    model.standardise([2e4], [3e4])
    x = torch.linspace(-30, 30, 60_001, dtype=torch.float64) * 3e4 + 2e4
    density = model.double().log_prob(x[:, None]).exp()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-6)


def test_the_elbo_of_a_model_without_a_code_is_the_density_of_the_table() -> None:
    """With p(x | z) = N(0, 1) in standard units and q(z | x) = N(0, 1), the bound is log N(x; μ, σ²)."""
    model = VAE((2,), None, latent_dim=1, width=8).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    mean, std = torch.tensor([3.0, 4e4]), torch.tensor([0.01, 3e4])
    model.standardise(mean, std)
    x = mean + std * torch.randn(50, 2, generator=seeded())
    truth = torch.distributions.Normal(mean.double(), std.double()).log_prob(x.double()).sum(1)
    torch.testing.assert_close(model.log_prob(x).double(), truth, atol=1e-3, rtol=0)


# ------------------------------------------------------------------------------------------------ stated and kept


class Table(DataModule):
    """Two columns in very different units, which states so."""

    shape = (2,)

    def __init__(self) -> None:
        super().__init__(val_size=8, batch_size=8)
        self.standardisation = MEAN, STD

    def load(self, split: str) -> InMemory:
        return InMemory(to_own(torch.randn(40, 2, generator=seeded())))


def fit(model: Any, **options: Any) -> Trainer:
    run = Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    run.fit(model, datamodule=Table(), **options)
    return run


def units(model: Any) -> list[list[float]]:
    return [model.column_mean.tolist(), model.column_std.tolist()]


STATED = [MEAN.tolist(), STD.tolist()]


@pytest.mark.parametrize("case", [Case(c.family, c.shape, c.levels, c.claimed) for c in POINTS[:9]], ids=str)
def test_a_training_standardises_as_the_data_state(case: Case, tmp_path: Path, recwarn: Any) -> None:
    model = case.build()
    assert not model.is_standardising and units(model) == [[0, 0], [1, 1]]
    run = fit(model)
    assert model.is_standardising and units(model) == STATED
    assert not any("Standardise" in str(warning.message) for warning in recwarn)
    run.save_checkpoint(tmp_path / "model.ckpt")
    x, loaded = to_own(case.data(3)), [case.family.load_from_checkpoint(tmp_path / "model.ckpt").eval()]
    loaded.append(load_checkpoint(tmp_path / "model.ckpt"))
    model.eval()
    for dtype in ("float32", "float16"):
        folder = publish(model, "table/model", to=tmp_path / dtype, dtype=dtype)  # type: ignore[arg-type]
        loaded.append(genzoo.load(folder))
    for again in loaded:
        assert units(again) == STATED
    for again in loaded[:3]:
        assert torch.equal(again.anomaly_score(x), model.anomaly_score(x))
        if isinstance(model, HasLogProb):
            log_probs = [m.log_prob(x, generator=seeded()) for m in (again, model)]
            assert torch.equal(*log_probs)


def test_what_a_model_was_told_or_has_learned_with_it_keeps() -> None:
    model = VAE((2,), None, width=8)
    model.standardise(MEAN, 2 * STD)
    fit(model)
    assert units(model) == [MEAN.tolist(), (2 * STD).tolist()]


def test_a_run_that_goes_on_has_the_units_of_its_checkpoint(tmp_path: Path) -> None:
    model = FlowMatching((2,), None, width=8)
    model.standardise(MEAN, 2 * STD)
    run = Trainer(max_epochs=1, callbacks=[EMA()], default_root_dir=tmp_path, **QUIET)
    run.fit(model, datamodule=Table())
    run.save_checkpoint(tmp_path / "model.ckpt")
    again = FlowMatching((2,), None, width=8)
    Trainer(max_epochs=2, callbacks=[EMA()], default_root_dir=tmp_path, **QUIET).fit(
        again, datamodule=Table(), ckpt_path=str(tmp_path / "model.ckpt"), weights_only=True
    )
    assert units(again) == [MEAN.tolist(), (2 * STD).tolist()]


@pytest.mark.parametrize("case", POINTS[:9], ids=str)
def test_weights_from_before_there_were_units_load_and_change_nothing(case: Case) -> None:
    model = case.build()
    old = {name: value for name, value in model.state_dict().items() if name not in ("column_mean", "column_std")}
    again = case.build(seed=1)
    again.load_state_dict(old, strict=True)
    assert units(again) == [[0, 0], [1, 1]]
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict({name: old[name] for name in old if name != next(iter(dict(model.named_parameters())))})


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_an_entry_with_standard_deviations_that_are_none_is_refused(std: float, tmp_path: Path) -> None:
    model = VAE((2,), None, width=8)
    model.column_std.fill_(std)
    with pytest.raises(ValueError, match="holds standard deviations in column_std that are not above 0"):
        publish(model, "own/model", to=tmp_path / "entry")


def test_images_have_no_units() -> None:
    model = VAE((1, 8, 8), 2)
    assert "column_mean" not in model.state_dict() and not model.is_standardising
    with pytest.raises(ValueError, match=r"the columns of points \(D,\) have units, but this VAE is for image"):
        model.standardise([0.0], [1.0])


@pytest.mark.parametrize(
    ("mean", "std", "says"),
    [
        ([0.0], [1.0, 1.0], "mean is a finite number for each of the 2 columns"),
        ([0.0, math.nan], [1.0, 1.0], "mean is a finite number"),
        ([0.0, 0.0], [1.0, 0.0], "std is a finite number above 0 for each of the 2 columns"),
        ([0.0, 0.0], [1.0, -1.0], "above 0"),
        ([0.0, 0.0], [1.0, 1e-60], "above 0"),  # in single precision
    ],
)
def test_units_that_are_none_are_refused(mean: list[float], std: list[float], says: str) -> None:
    model = VAE((2,), None)
    with pytest.raises(ValueError, match=says):
        model.standardise(mean, std)
    assert not model.is_standardising


def test_the_warning_of_columns_far_from_unit_scale_says_how() -> None:
    x = torch.randn(16, 2, generator=seeded()) * 1e5
    assert "Standardise each column: model.standardise(mean, std)" in str(unusual_scale(x))
    model = VAE((2,), None, width=8)
    with pytest.warns(UserWarning, match=r"model\.standardise\(mean, std\)"):
        model.unpack(x, "train")
    model = VAE((2,), None, width=8)
    model.standardise(x.mean(0), x.std(0))
    Trainer(max_epochs=1, enable_checkpointing=False, **QUIET).fit(model, DataLoader(x, batch_size=16))
    assert model.log_prob(x).isfinite().all()


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_half_precision_is_the_network_s_and_not_the_data_s(precision: Any) -> None:
    """In bfloat16 the years from 1990 to 2020 are five numbers, and 70,000 is none in float16."""
    torch.manual_seed(0)
    x = torch.stack([1990 + torch.arange(64) % 31, 70_000 + torch.arange(64.0)], 1).float()
    seen: list[torch.Tensor] = []

    class Watching(VAE):
        def objective(self, x: torch.Tensor, labels: Any) -> Any:
            seen.append(x)
            return super().objective(x, labels)

        def evaluation(self, x: torch.Tensor, labels: Any, generator: Any) -> Any:
            seen.append(x)
            return super().evaluation(x, labels, generator)

    model = Watching((2,), None, latent_dim=2, width=8, depth=1)
    model.standardise(x.mean(0), x.std(0))
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_steps=1, precision=precision, accelerator="cpu", num_sanity_val_steps=0, **options)
    trainer.fit(model, DataLoader(x, batch_size=64), DataLoader(x, batch_size=64))
    assert len(seen) == 2 and all(torch.equal(given, x) for given in seen)
    assert trainer.precision_plugin.convert_input(x).dtype != torch.float32  # for whatever it trains next
    assert next(model.parameters()).dtype != torch.float32
    assert torch.equal(to_module(x, model), x)
