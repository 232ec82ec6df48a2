"""The best variances of the reverse chain: in closed form, fitted to data, and in a Lightning run."""

import math

import pytest
import torch
from analytic import CorrelatedGaussian
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from genzoo.callbacks import EMA, LikelihoodLogger, Newest
from genzoo.zoo import (
    DDPM,
    CosineBetas,
    LinearBetas,
    OptimalTransport,
    PerDatum,
    VarianceExploding,
    VariancePreserving,
)
from genzoo.zoo.diffusion.likelihood import ReverseChain
from genzoo.zoo.diffusion.parameterisation import predicted
from genzoo.zoo.diffusion.variances import _pooled

SCHEDULES = [LinearBetas(), CosineBetas(), VariancePreserving(), VarianceExploding(), OptimalTransport()]
by_name = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
EIGENVALUES = torch.tensor([2.0, 1.0, 0.3, 0.01], dtype=torch.float64)  # of the data's covariance
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def errors(schedule, times, eigenvalues):
    """E(x₀ − x̂₀)² of the best denoiser of N(0, diag(eigenvalues)) at the beginning of each step, averaged over d."""
    noise = schedule(times[:-1])
    alpha, sigma = noise.alpha[:, None].square(), noise.sigma[:, None].square()
    return (eigenvalues * sigma / (alpha * eigenvalues + sigma)).mean(1)


def expected_bound(chain, eigenvalues, error):
    """−E ELBO over N(0, diag(eigenvalues)), every term in closed form."""
    d = len(eigenvalues)
    prior = float(chain.prior(eigenvalues.sqrt()[None]))  # quadratic in x₀
    divergences = float((chain.error_weight * error[:-1] + chain.excess).sum())
    std = float(chain.last_std)
    decoder = math.log(std * math.sqrt(2 * math.pi)) + float(error[-1]) / (2 * std**2)
    return prior + d * (divergences + decoder)


def best_chain(schedule, times, error):
    return ReverseChain(schedule, times, error / ReverseChain(schedule, times, "large").white_error)


def entropy(eigenvalues):
    return float((2 * math.pi * math.e * eigenvalues).log().sum() / 2)


def wrong_prior(schedule, eigenvalues):
    """KL(N(0, α² C + σ²) ‖ N(0, s²)) at t = 1: what any chain pays for beginning at N(0, s²)."""
    one = torch.ones((), dtype=torch.float64)
    noise, std = schedule(one), schedule.prior_std(one)
    ratio = (noise.alpha.square() * eigenvalues + noise.sigma.square()) / std**2
    return float((ratio - 1 - ratio.log()).sum() / 2)


# ---- in closed form


@by_name
@pytest.mark.parametrize("steps", [2, 10, 1000])
def test_the_bound_of_isotropic_data_is_exact_at_any_number_of_steps(schedule, steps):
    """Each step of the chain is then the true posterior, so that nothing but the prior is lost."""
    times, c = schedule.times(steps), torch.full((3,), 0.25, dtype=torch.float64)
    error = errors(schedule, times, c)
    bound = expected_bound(best_chain(schedule, times, error), c, error)
    assert bound == pytest.approx(entropy(c) + wrong_prior(schedule, c), abs=1e-8)
    assert expected_bound(ReverseChain(schedule, times, "large"), c, error) > bound + 1e-3


@by_name
@pytest.mark.parametrize("steps", [10, 1000])
def test_no_other_variances_give_a_tighter_bound(schedule, steps):
    """Nor is it tighter than the truth; "small" and "large" are looser."""
    times = schedule.times(steps)
    error = errors(schedule, times, EIGENVALUES)
    best = expected_bound(best_chain(schedule, times, error), EIGENVALUES, error)
    assert best > entropy(EIGENVALUES)
    for other in ("small", "large"):
        assert expected_bound(ReverseChain(schedule, times, other), EIGENVALUES, error) > best
    for factor in (0.5, 2.0):
        for step in range(0, steps, max(1, steps // 7)):
            moved = error.clone()
            moved[step] *= factor
            assert expected_bound(best_chain(schedule, times, moved), EIGENVALUES, error) > best


def test_divergences_with_the_best_variances_are_what_decides_where_to_look():
    """E KL_k = −½ D ln r_k, of which half of the chances are made."""
    schedule = CosineBetas()
    times = schedule.times(1000)
    error = errors(schedule, times, EIGENVALUES)
    chain = best_chain(schedule, times, error)
    expected = chain.error_weight * error[:-1] + chain.excess
    torch.testing.assert_close(
        2 * chain.chances - 1 / len(expected), expected / expected.sum(), rtol=1e-6, atol=1e-12
    )


def test_errors_of_one_for_white_data_are_the_large_variance_and_none_are_the_small():
    for schedule in SCHEDULES:
        times = schedule.times(100)
        for error, variance in ((1.0, "large"), (0.0, "small")):
            ours = ReverseChain(schedule, times, torch.full((100,), error))
            theirs = ReverseChain(schedule, times, variance)
            assert ours.last_std == theirs.last_std
            torch.testing.assert_close(ours.error_weight, theirs.error_weight, rtol=1e-12, atol=0)
            torch.testing.assert_close(ours.excess, theirs.excess, rtol=1e-12, atol=1e-15)


# ---- fitted to data


class Best(nn.Module):
    """The network of the best denoiser of N(0, diag(EIGENVALUES))."""

    def __init__(self, schedule):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.data = CorrelatedGaussian(schedule, torch.diag(EIGENVALUES))

    def forward(self, scaled, c_noise, labels=None):
        at = self.data.schedule.at(-8 * c_noise.double())
        noise = at.like(scaled)
        x = scaled * (noise.alpha.square() + noise.sigma.square()).sqrt()
        x0 = self.data.denoise(x, at)
        return predicted("v", noise, x0, (x - noise.alpha * x0) / noise.sigma) + 0 * self.anchor


def gaussian_model(**arguments):
    schedule = CosineBetas(200)
    return DDPM((4,), None, schedule=schedule, prediction="v", network=Best(schedule), **arguments).eval()


def gaussian_data(num, seed=0):
    return torch.randn(num, 4, generator=seeded(seed)).double() * EIGENVALUES.sqrt()


def test_fitted_errors_are_those_of_the_denoiser():
    model = gaussian_model()
    error = errors(model.schedule, model.chain_times(), EIGENVALUES)
    model.fit_variances(gaussian_data(20_000).split(5000), num_particles=10)
    fitted = model.log_errors.double().exp() * model.chain().white_error
    torch.testing.assert_close(fitted, error, rtol=0.15, atol=0)
    assert float((fitted / error).log().mean()) == pytest.approx(0, abs=0.01)
    # the bound is less than 0.001 nats above the best one, and so is what `log_prob` says on average
    best = expected_bound(best_chain(model.schedule, model.chain_times(), error), EIGENVALUES, error)
    assert best <= expected_bound(model.chain(), EIGENVALUES, error) < best + 1e-3
    x = gaussian_data(4000, seed=1)
    log_prob = model.log_prob(x, num_particles=20, generator=seeded(2))
    assert float(log_prob.mean()) == pytest.approx(-best, abs=4 * float(log_prob.std()) / math.sqrt(4000))
    assert expected_bound(model.chain("large"), EIGENVALUES, error) > best + 0.01


def test_as_many_data_and_looks_do_as_a_run_takes():
    """Looks at neighbouring steps are pooled, so that little is lost by their being few."""
    model = gaussian_model()
    error = errors(model.schedule, model.chain_times(), EIGENVALUES)
    best = expected_bound(best_chain(model.schedule, model.chain_times(), error), EIGENVALUES, error)
    model.fit_variances([gaussian_data(model.variance_data)], num_particles=32_768 // 512)
    large = expected_bound(model.chain("large"), EIGENVALUES, error)
    assert expected_bound(model.chain(), EIGENVALUES, error) - best < 0.1 * (large - best)


def test_errors_are_pooled_over_the_nearest_looks():
    counts = torch.tensor([0, 3, 40, 0, 9, 0, 30]).double()
    sums = counts * torch.tensor([0, 1, 2, 0, 3, 0, 4]).double()
    expected = [83 / 43, 83 / 43, 2, 107 / 49, 227 / 79, 147 / 39, 4]  # at least 16 of them
    assert _pooled(sums, counts).tolist() == pytest.approx(expected)
    assert _pooled(torch.tensor([0.0, 6, 0]).double(), torch.tensor([0.0, 2, 0]).double()).tolist() == [3, 3, 3]


@pytest.mark.parametrize(("levels", "spread"), [(17, 0.05), (256, 0.004)])
def test_the_last_variance_makes_data_with_levels_likeliest(levels, spread):
    """Better than the mean squared error, and than any beside it."""

    class Rough(nn.Module):
        """A guess that is exact for half of the pixels and off for the others."""

        def __init__(self):
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(()))

        def forward(self, scaled, c_noise, labels=None):
            off = spread * torch.randn(scaled.shape, generator=seeded(len(scaled)))
            return x[: len(scaled)] * 2 - 1 + off * (torch.arange(8) % 2) + 0 * self.anchor

    x = torch.randint(1, levels - 1, (64, 1, 8, 8), generator=seeded()) / (levels - 1)
    model = DDPM((1, 8, 8), levels, schedule=CosineBetas(), prediction="x0", network=Rough()).eval()
    model.fit_variances([x], num_particles=1)
    y, std = model.to_model(x), model.chain().last_std
    mean = model.chain().last_look(model.denoiser(clip=True), y).detach()

    def nll(std):
        return -float(model.decoder(mean, std).log_prob(x).double().mean())

    rms = float((mean - y).square().mean().sqrt())
    assert nll(std) < nll(rms) - 0.01
    assert all(nll(std) < nll(factor * std) for factor in (0.98, 1.02, 0.5, 2))


def test_the_last_variance_of_continuous_data_is_the_mean_squared_error():
    model, x = gaussian_model(), gaussian_data(500)
    model.fit_variances([x], num_particles=1)
    error = (x - model.chain().last_look(model.denoiser(), x, seeded())).square().mean()
    assert model.chain().last_std ** 2 == pytest.approx(error.item(), rel=1e-3)


def test_weights_without_variances_have_the_large_one():
    torch.manual_seed(0)
    old, large = (DDPM((1, 8, 8), 17, width=16, variance=v).eval() for v in ("optimal", "large"))
    weights = {name: value for name, value in large.state_dict().items() if name != "log_errors"}
    old.load_state_dict(weights, strict=True)
    x = torch.randint(17, (4, 1, 8, 8), generator=seeded()) / 16
    assert torch.equal(old.log_prob(x, generator=PerDatum(x)), large.log_prob(x, generator=PerDatum(x)))
    assert old.log_prob_protocol == (
        "reverse chain of 990 steps, one looked at for each particle, variances not fitted yet"
    )
    old.fit_variances([x])
    assert "variances fitted to training data" in old.log_prob_protocol
    assert "'large' variances" in large.log_prob_protocol
    again = DDPM((1, 8, 8), 17, width=16)
    again.load_state_dict(old.half().state_dict())  # as published in half precision
    assert float((again.log_errors - old.float().log_errors).abs().max()) < 0.005


def test_what_cannot_be_fitted_is_refused():
    model, x = DDPM((2,), None, width=8), torch.randn(4, 2)
    for variance in ("small", "large"):
        with pytest.raises(ValueError, match="only variance='optimal' is fitted"):
            DDPM((2,), None, width=8, variance=variance).fit_variances([x])
    with pytest.raises(ValueError, match="variance='learned': choose 'optimal', 'small' or 'large'"):
        DDPM((2,), None, variance="learned")
    with pytest.raises(ValueError, match="held none"):
        model.fit_variances([])
    with pytest.raises(ValueError, match=r"built for data of shape \(2,\)"):
        model.fit_variances([torch.randn(4, 3)])
    with pytest.raises(ValueError, match="is conditional, and was given no labels"):
        DDPM((2,), None, width=8, num_classes=3, conditional=True).fit_variances([x])


def test_fitting_again_gives_the_same_and_leaves_the_random_state_and_the_modes_alone():
    torch.manual_seed(0)
    model, x = DDPM((1, 8, 8), 17, width=16, dropout=0.5), torch.randint(17, (64, 1, 8, 8), generator=seeded()) / 16
    model.train()
    model.network.norm.eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    found = []
    for _ in range(2):
        model.fit_variances([x])
        found.append(model.log_errors.clone())
    assert torch.equal(*found)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    model.eval().fit_variances([x])
    assert torch.equal(model.log_errors, found[0])


def test_a_chain_of_one_step_is_refused_before_it_is_trained():
    with pytest.raises(ValueError, match=r"A reverse chain has at least two steps, but LinearBetas.* leaves 1"):
        DDPM((2,), None, schedule=LinearBetas(1, 5e-4, 5e-4), steps=1)


# ---- in a run, where few looks do


@pytest.fixture
def few_looks(monkeypatch):
    monkeypatch.setattr(DDPM, "variance_looks", {"image": 64})


class Watch(Callback):
    """What is fitted, and to which weights."""

    def __init__(self):
        self.fits = []

    def setup(self, trainer, pl_module, stage):
        fit = pl_module.fit_variances

        def watched(batches, **arguments):
            weights = {name: value.clone() for name, value in pl_module.network.state_dict().items()}
            self.fits.append((trainer.global_step, sum(len(x) for x, _ in batches), weights))
            fit(batches, **arguments)

        pl_module.fit_variances = watched


TRAINERS = ("val_check_interval", "check_val_every_n_epoch", "max_steps")


def run(folder, *callbacks, max_epochs=2, validate=True, **arguments):
    torch.manual_seed(0)
    of_trainer = {name: arguments.pop(name) for name in TRAINERS if name in arguments}
    model = DDPM((1, 8, 8), 17, width=16, **arguments)
    x, y = torch.randint(17, (40, 1, 8, 8), generator=seeded()) / 16, torch.arange(40) % 3
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    keeps = any(isinstance(callback, Checkpoint) for callback in callbacks)
    trainer = Trainer(
        max_epochs=max_epochs,
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_checkpointing=keeps,
        **of_trainer | QUIET,
    )
    trainer.fit(model, loader, DataLoader(TensorDataset(x, y), batch_size=8) if validate else None)
    return model, trainer


@pytest.mark.usefixtures("few_looks")
def test_every_validation_is_of_the_averaged_weights_with_variances_fitted_to_them(tmp_path):
    watch = Watch()
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1)
    model, trainer = run(tmp_path, EMA(decay=0.5), watch, keep)
    assert [(step, num) for step, num, _ in watch.fits] == [(5, 40), (10, 80)]
    for step, _, weights in watch.fits:
        checkpoint = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
        assert all(torch.equal(value, checkpoint["state_dict"][f"network.{name}"]) for name, value in weights.items())
        validated = trainer.validate(
            model, trainer.val_dataloaders, ckpt_path=tmp_path / f"step={step}.ckpt", verbose=False
        )
        assert torch.equal(model.log_errors, checkpoint["state_dict"]["log_errors"])
    assert float(model.log_errors.abs().max()) > 0.1
    assert validated[0]["val/nll"] == pytest.approx(float(trainer.logged_metrics["val/nll"]))
    assert len(watch.fits) == 2  # nothing is fitted outside of training


@pytest.mark.usefixtures("few_looks")
def test_without_validation_they_are_fitted_when_training_ends(tmp_path):
    watch = Watch()
    model, _ = run(tmp_path, watch, validate=False)
    assert [(step, num) for step, num, _ in watch.fits] == [(5, 40), (10, 80)]  # the first: until then there are none
    assert all(torch.equal(value, model.network.state_dict()[name]) for name, value in watch.fits[1][2].items())


class Looks(LikelihoodLogger):
    """With what variances it does."""

    def act(self, trainer, module):
        self.seen = module.log_errors.clone()
        return super().act(trainer, module)


@pytest.mark.parametrize("averaged", [False, True])
def test_without_validation_checkpoints_and_figures_have_variances_that_fit_their_weights(
    averaged, tmp_path, monkeypatch
):
    """As soon as so many data were trained on as the fit takes: here, an epoch's."""
    monkeypatch.setattr(DDPM, "variance_looks", {"image": 40})
    keep, newest, looks, watch = (
        ModelCheckpoint(tmp_path, save_top_k=-1),
        Newest(tmp_path / "new"),
        Looks(1, "train"),
        Watch(),
    )
    callbacks = [looks, keep, newest, watch] + [EMA(decay=0.5)] * averaged
    model, _ = run(tmp_path, *callbacks, validate=False)
    assert [step for step, *_ in watch.fits] == [5, 10]
    saved = sorted(tmp_path.glob("epoch=*.ckpt"), key=lambda path: path.stat().st_mtime)
    for path, (_, _, weights) in zip(saved, watch.fits, strict=True):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.equal(value, state[f"network.{name}"]) for name, value in weights.items())
        assert float(state["log_errors"].abs().max()) > 0.1
    state = torch.load(newest.path, weights_only=True)["state_dict"]
    assert torch.equal(state["log_errors"], model.log_errors) and torch.equal(looks.seen, model.log_errors)


@pytest.mark.usefixtures("few_looks")
@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize(
    "options", [{"max_steps": 3}, {"max_steps": 8}, {"check_val_every_n_epoch": 2, "max_epochs": 3}]
)
def test_the_newest_state_has_variances_that_fit_its_weights_whatever_ends_the_run(averaged, options, tmp_path):
    """In the first epoch, in another, and after an epoch that no validation follows."""
    newest = Newest(tmp_path)
    watch = Watch()
    validate = "check_val_every_n_epoch" in options
    model, trainer = run(tmp_path, watch, newest, *[EMA(decay=0.5)] * averaged, validate=validate, **options)
    step, _, weights = watch.fits[-1]
    state = torch.load(newest.path, weights_only=True)["state_dict"]
    assert step == trainer.global_step == options.get("max_steps", 15)
    assert torch.equal(state["log_errors"], model.log_errors) and float(model.log_errors.abs().max()) > 0
    assert all(torch.equal(value, state[f"network.{name}"]) for name, value in weights.items())


class Endless(IterableDataset):
    """Of three batches, but who knows."""

    def __iter__(self):
        return iter(torch.randint(17, (24, 1, 8, 8), generator=seeded()) / 16)


@pytest.mark.usefixtures("few_looks")
@pytest.mark.parametrize("stops", [False, True])
def test_the_newest_state_of_a_run_whose_end_nobody_foresees(stops, tmp_path):
    """Epochs without a length, or one that turns out to be the last."""
    newest, watch = Newest(tmp_path), Watch()
    early = [EarlyStopping("train/loss", patience=1, min_delta=1e9)] * stops
    length = {"max_epochs": 9 if stops else 3, "default_root_dir": tmp_path}
    trainer = Trainer(**length, callbacks=[watch, newest, *early], **QUIET)
    torch.manual_seed(0)
    model = DDPM((1, 8, 8), 17, width=16)
    trainer.fit(model, DataLoader(Endless(), batch_size=8))
    state = torch.load(newest.path, weights_only=True)["state_dict"]
    assert watch.fits[-1][0] == trainer.global_step == (6 if stops else 9)
    assert torch.equal(state["log_errors"], model.log_errors)


@pytest.mark.usefixtures("few_looks")
def test_data_of_a_checkpoint_before_they_were_codes_are_taken_as_they_are():
    model = DDPM((1, 8, 8), 17, width=16)
    x = torch.randint(17, (4, 1, 8, 8), generator=seeded()) / 16
    assert model.as_seen(x).dtype == torch.uint8
    torch.testing.assert_close(model.from_seen(model.as_seen(x)), x)
    assert torch.equal(model.from_seen(x), x)


@pytest.mark.usefixtures("few_looks")
def test_a_validation_after_a_few_steps_does_not_throw_away_what_many_said(tmp_path):
    """The data of before are looked at again; those that there is no room for are the oldest."""
    watch = Watch()
    run(tmp_path, watch, max_epochs=1, val_check_interval=2)
    assert [(step, num) for step, num, _ in watch.fits] == [(2, 16), (4, 32), (5, 40)]


@pytest.mark.usefixtures("few_looks")
def test_no_more_data_are_kept_than_are_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(DDPM, "variance_data", 20)
    watch = Watch()
    run(tmp_path, watch, conditional=True, num_classes=3)
    assert [num for _, num, _ in watch.fits] == [24, 24]  # batches of 8, of which the last two are 16


@pytest.mark.usefixtures("few_looks")
def test_the_weights_do_not_depend_on_whether_variances_are_fitted(tmp_path):
    (fitted, _), (fixed, _) = (run(tmp_path, variance=variance) for variance in ("optimal", "large"))
    for name, value in fixed.network.state_dict().items():
        assert torch.equal(value, fitted.network.state_dict()[name]), name
    assert not bool(fixed.log_errors.any())


@pytest.mark.usefixtures("few_looks")
def test_a_run_broken_off_between_validations_goes_on_with_the_same_data(tmp_path):
    """After seven steps, with the data of all of them."""

    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "seven.ckpt")

    run(tmp_path, Stop())
    checkpoint = torch.load(tmp_path / "seven.ckpt", weights_only=True)
    assert sum(len(x) for x, _ in checkpoint["gathered"][0]["_seen"]) == 56
    watch = Watch()
    torch.manual_seed(5)
    model = DDPM((1, 8, 8), 17, width=16)
    x, y = torch.randint(17, (40, 1, 8, 8), generator=seeded()) / 16, torch.arange(40) % 3
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=[watch], **QUIET)
    trainer.fit(model, loader, DataLoader(TensorDataset(x, y), batch_size=8), ckpt_path=tmp_path / "seven.ckpt")
    assert [(step, num) for step, num, _ in watch.fits] == [(10, 80)]
