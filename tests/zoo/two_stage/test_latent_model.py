"""A generator of codes: its bound by hand and over all data, its stages, what is kept and what is loaded."""

import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from families import Noise
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sameness import assert_same
from torch.distributions import Normal

import genzoo
from genzoo.callbacks import EMA
from genzoo.resuming import FitLoop
from genzoo.zoo import (
    DDPM,
    FSQ,
    GAN,
    GPT,
    VAE,
    VQ,
    Autoencoder,
    FlowMatching,
    LatentModel,
    MaskedDiffusion,
    OneCycle,
    PerDatum,
    PixelCNN,
    QuantisedAutoencoder,
)
from genzoo.zoo.hub.building import build, model_classes

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
CODES = partial(QuantisedAutoencoder, quantiser=FSQ((3, 3)), width=4, factor=2)
SPATIAL = partial(VAE, network="spatial", latent_dim=2, width=4)
SMALL = partial(GPT, width=16, depth=1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Kept(Callback):
    """What a training keeps until its end, and no longer."""

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.codes, self.labels = pl_module._kept


def model(shape: tuple[int, ...] = (1, 8, 8), levels: int = 17, **options: Any) -> LatentModel:
    torch.manual_seed(0)
    return LatentModel(shape, levels, **({"autoencoder": CODES, "prior": SMALL} | options)).eval()


def data(number: int, shape: tuple[int, ...] = (1, 8, 8), levels: int = 17) -> torch.Tensor:
    return torch.randint(levels, (number, *shape), generator=seeded()) / (levels - 1)


# ---- the bound


@pytest.mark.parametrize("prior", [SMALL, partial(PixelCNN, channels=8)])
def test_the_bound_of_discrete_codes_is_that_of_their_own_by_hand(prior) -> None:
    """log p(x | z*) by the decoder alone and log p(z*) by the prior alone: whichever way it reads the grid."""
    ours, x = model(prior=prior), data(5)
    codes = ours.autoencoder.codes(x)
    z = codes.flatten(1) if prior is SMALL else codes[:, None] / 8
    pixels = ours.autoencoder.decoded(ours.autoencoder.vectors(codes)).log_prob(x)
    torch.testing.assert_close(ours.log_prob(x), pixels + ours.prior.log_prob(z))
    assert ours.log_prob_kind == "lower_bound"
    torch.testing.assert_close(ours.evaluation(x, None, PerDatum(x))["nll"], -ours.log_prob(x))


def test_the_bound_sums_to_no_more_than_one_over_all_data() -> None:
    """And with all codes instead of one for each datum to one: p(x) = Σ_z p(x | z) p(z)."""
    ours = model((1, 2, 4), 2)
    x = torch.tensor(list(product([0.0, 1.0], repeat=8))).view(-1, 1, 2, 4)
    assert ours.autoencoder.grid == (1, 2)
    every = torch.tensor(list(product(range(9), repeat=2)))
    log_prior = ours.prior.log_prob(every)
    pixels = torch.stack([ours.decoded(z.expand(len(x), 2)).log_prob(x) for z in every])
    exact = (pixels + log_prior[:, None]).logsumexp(0)
    assert float(exact.double().exp().sum()) == pytest.approx(1, abs=1e-5)
    bound = ours.log_prob(x)
    assert bool((bound <= exact + 1e-5).all()) and float(bound.double().exp().sum()) < 0.999


def test_the_bound_of_continuous_codes_is_that_of_draws_in_any_units() -> None:
    """E_q [log p(x | z) + log p(z) − log q(z | x)], by hand in the autoencoder's own units, where the prior's density
    has the volume of its standardised ones."""
    ours, x = model(autoencoder=SPATIAL, prior=partial(FlowMatching, width=8)), data(3)
    ours.space.channel_mean.copy_(torch.tensor([0.5, -1.0]).view(2, 1, 1))
    ours.space.channel_std.copy_(torch.tensor([2.0, 0.3]).view(2, 1, 1))
    assert ours.log_prob_kind == "estimate"
    q = ours.autoencoder.posterior(x).base_dist
    standard = ours.space.draw(ours.space.posterior(ours.autoencoder, x), seeded())
    z = (standard * ours.space.channel_std + ours.space.channel_mean).flatten(1)
    log_q = Normal(q.loc, q.scale).log_prob(z).sum(1)
    given = seeded()
    torch.randn(standard.shape, generator=given)  # which were those of z
    log_prior = ours.prior.log_prob(standard, generator=given) - 4 * ours.space.channel_std.log().sum()
    expected = ours.autoencoder.decoded(z).log_prob(x) + log_prior - log_q
    torch.testing.assert_close(ours.log_prob(x, generator=seeded()), expected, rtol=1e-4, atol=1e-3)


def test_a_chain_over_continuous_codes_gives_a_bound() -> None:
    assert model(autoencoder=SPATIAL, prior=partial(DDPM, width=8)).log_prob_kind == "lower_bound"


# ---- samples and completions


def test_samples_are_decoded_draws_of_the_prior() -> None:
    ours = model(pixel_noise=False)
    codes = ours.prior.sample(6, generator=seeded()).view(-1, *ours.autoencoder.grid)
    images = (ours.autoencoder.decode_codes(codes) * 16).round() / 16
    torch.testing.assert_close(ours.sample(6, generator=seeded()), images)
    noisy = model().sample(6, generator=seeded())
    assert not torch.equal(noisy, images) and torch.equal(ours.check(noisy), noisy)


def test_codes_are_drawn_as_often_as_the_prior_says() -> None:
    ours = model((1, 2, 4), 2)
    every = torch.tensor(list(product(range(9), repeat=2)))
    expected = ours.prior.log_prob(every).exp()
    drawn = ours.prior.sample(20_000, generator=seeded())
    shares = torch.bincount(drawn[:, 0] * 9 + drawn[:, 1], minlength=81) / 20_000
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.006)


def test_a_code_is_known_where_all_of_its_pixels_are() -> None:
    ours = model((1, 6, 7), 17, autoencoder=partial(CODES, factor=4), prior=partial(PixelCNN, channels=8))
    pixels = torch.ones(2, 1, 6, 7, dtype=torch.bool)
    pixels[0, 0, 0, 6] = pixels[1, 0, 5, 0] = False
    expected = torch.tensor([[[True, False], [True, True]], [[True, True], [False, True]]])
    assert torch.equal(ours.space.known(pixels), expected[:, None])
    flat = model((1, 6, 7), 17, autoencoder=partial(CODES, factor=4))
    assert torch.equal(flat.space.known(pixels), expected.flatten(1))


def test_known_codes_decide_a_completion_and_known_pixels_are_kept() -> None:
    ours, x = model(), data(3)
    known = torch.zeros(8, 8, dtype=torch.bool)
    known[:4] = True
    out = ours.complete(x, known, num_samples=3, generator=seeded())
    assert torch.equal(out[:, :, :, :4], x[:, :, :4].expand(3, -1, -1, -1, -1))
    again = ours.complete(torch.where(known, x, 1 - x), known, num_samples=3, generator=seeded())
    assert torch.equal(out, again)  # what is unknown is not read
    assert not torch.equal(out[0], out[1])


@torch.no_grad()
def test_a_completion_is_drawn_as_the_prior_says_of_the_codes_that_are_not_known() -> None:
    """Σ_z₂ p(z₂ | z₁) p(x | z₁, z₂) over the right half, enumerated; z₁ is that of the known left half."""
    ours = model((1, 2, 4), 2)
    ours.completion_sweeps = 1
    known = torch.zeros(1, 2, 4, dtype=torch.bool)
    known[..., :2] = True
    x = torch.tensor([[[[1.0, 0, 0, 0], [0, 1, 0, 0]]]])
    first = ours.autoencoder.codes(torch.where(known, x, 0.5)).flatten(1)[0, 0]
    every = torch.stack([first.expand(9), torch.arange(9)], 1)
    given = ours.prior.log_prob(every).double().softmax(0)
    right = torch.tensor(list(product([0.0, 1.0], repeat=4))).view(-1, 1, 2, 2)
    whole = torch.cat([x[..., :2].expand(16, -1, -1, -1), right], 3)
    ones = ours.decoded(every).mean.double()  # of independent pixels
    halves = torch.where(whole[:, None] == 1, ones, 1 - ones)[..., 2:].flatten(2).prod(2)
    expected = (halves * given).sum(1)
    assert float(expected.sum()) == pytest.approx(1, abs=1e-6)
    drawn = ours.complete(x, known, num_samples=8000, generator=seeded())[:, 0, 0, :, 2:].flatten(1)
    shares = (drawn @ torch.tensor([8.0, 4, 2, 1])).long().bincount(minlength=16) / 8000
    assert float((shares - expected).abs().sum()) / 2 < 0.03


def test_a_completion_does_not_depend_on_what_else_is_completed() -> None:
    """However much of that is unknown, and in as many steps: the surest codes first, several times over."""
    prior = partial(MaskedDiffusion, width=16, depth=1, heads=2, sampler="confidence")
    ours = model(levels=4, autoencoder=partial(CODES, quantiser=FSQ((4, 4))), prior=prior)
    x, known = data(2, levels=4), torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    known[0, :, :6] = True
    both = ours.complete(x, known, generator=PerDatum(x))
    assert torch.equal(both[:, :1], ours.complete(x[:1], known[:1], generator=PerDatum(x[:1])))


@pytest.mark.parametrize("continuous", [False, True])
def test_anomaly_scores_are_of_the_decoder_alone_and_of_the_bound(continuous: bool) -> None:
    parts = {"autoencoder": SPATIAL, "prior": partial(FlowMatching, width=8)} if continuous else {}
    ours, x = model(**parts), data(4)
    nll, reconstruction = (ours.anomaly_score(x, scorer=scorer) for scorer in ("nll", "reconstruction"))
    bound = ours.log_prob(x, num_particles=ours.anomaly_particles, generator=PerDatum(x))
    torch.testing.assert_close(nll, -bound)
    tokenizer = ours.autoencoder
    code = tokenizer.encode(x).mean if continuous else tokenizer.vectors(tokenizer.codes(x))
    torch.testing.assert_close(reconstruction, -tokenizer.decoded(code).log_prob(x))
    assert torch.equal(ours.anomaly_score(x), reconstruction if continuous else nll)


def test_an_interpolation_decodes_that_of_the_prior() -> None:
    ours, x = model(autoencoder=SPATIAL, prior=partial(FlowMatching, width=8)), data(4)
    standard = [ours.space.posterior(ours.autoencoder, part) for part in (x[:2], x[2:])]
    path = ours.prior.interpolate(*map(ours.space.mean, standard), 3)
    line = ours.interpolate(x[:2], x[2:], 3)
    own_units = path * ours.space.channel_std + ours.space.channel_mean
    for ours_, z in zip(line, own_units, strict=True):
        torch.testing.assert_close(ours_, ours.autoencoder.decode(z.flatten(1)).mean)
    for end, of in ((line[0], x[:2]), (line[-1], x[2:])):
        torch.testing.assert_close(end, ours.reconstruct(of), atol=0.02, rtol=0)
    assert not hasattr(model(), "interpolate")


# ---- standardised latents


def test_latents_are_standardised_by_channel_and_back() -> None:
    """Draws of q over the data have mean 0 and variance 1 in each channel; decoding undoes it."""
    ours, x = model(autoencoder=SPATIAL, prior=partial(FlowMatching, width=8)), data(64)
    with torch.no_grad():
        posterior = ours.space.posterior(ours.autoencoder, x)
        posterior = torch.stack([3 * posterior[:, 0] + 7, 2 * posterior[:, 1]], 1)
        ours.space.measure(posterior)
        z = torch.cat([ours.space.draw(posterior, seeded(i)) for i in range(200)])
        torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=0.01)
        torch.testing.assert_close(z.var((0, 2, 3)), torch.ones(2), rtol=0.02, atol=0)
        mean = ours.space.mean(posterior)
        torch.testing.assert_close(ours.decoded(mean).mean, ours.autoencoder.decoded(posterior[:, 0].flatten(1)).mean)


# ---- the two stages


class Stages(Callback):
    """The stage of each step, its rate, what the optimiser owns, and which parameters moved."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[tuple[str, float, int]] = []
        self.moved: list[set[str]] = []
        self.stop_at = stop_at

    def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
        self.before = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, *_: Any) -> None:
        (optimizer,) = trainer.optimizers
        owned = sum(len(group["params"]) for group in optimizer.param_groups)
        self.steps.append((pl_module.stage, optimizer.param_groups[0]["lr"], owned))
        moved = {n.partition(".")[0] for n, p in pl_module.named_parameters() if not torch.equal(p, self.before[n])}
        self.moved.append(moved)
        trainer.should_stop = trainer.global_step == self.stop_at


def fit(
    ours: LatentModel, folder: Path, *, ckpt_path: str | None = None, stop_at: int | None = None, max_steps: int = 12
) -> Any:
    """Twelve steps in two epochs, or broken off."""
    ema, stages = EMA(decay=0.5), Stages(stop_at)
    kept = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)
    trainer = Trainer(max_steps=max_steps, callbacks=[ema, stages, kept], default_root_dir=folder, **QUIET)
    FitLoop.install(trainer)
    trainer.fit(ours.train(), datamodule=Noise((1, 8, 8), 17), ckpt_path=ckpt_path)
    return trainer, ema, stages


SCHEDULE = partial(OneCycle, max_lr=1e-2, cycle_momentum=False)
ADAM = partial(torch.optim.AdamW, lr=1e-2)
STAGED = {
    "autoencoder": partial(CODES, optimizer=ADAM, lr_scheduler=SCHEDULE),
    "prior": partial(MaskedDiffusion, width=16, depth=1, heads=2, optimizer=ADAM, lr_scheduler=SCHEDULE),
    "first_stage": 0.5,
    "num_classes": 3,
    "conditional": True,
}


def test_one_part_learns_after_the_other_each_by_its_own_schedule(tmp_path: Path) -> None:
    ours = model(**STAGED)
    trainer, ema, stages = fit(ours, tmp_path)
    assert [stage for stage, _, _ in stages.steps] == ["autoencoder"] * 6 + ["prior"] * 6
    assert stages.moved == [{"autoencoder"}] * 6 + [{"prior"}] * 6
    rates = [rate for _, rate, _ in stages.steps]
    assert rates[:6] == pytest.approx(rates[6:]) and max(rates[:6]) > 5e-3 and rates[5] < 1e-6
    owned = [count for _, _, count in stages.steps]
    assert owned == [len(list(ours.autoencoder.parameters()))] * 6 + [len(list(ours.prior.parameters()))] * 6
    assert ema.num_updates == 6 and all(name.startswith("prior.") for name in ema._places)
    assert float(trainer.callback_metrics["val/codebook_usage"]) > 0


def test_the_codes_of_the_training_data_are_kept_with_their_mirror_images(tmp_path: Path) -> None:
    class Flipped(Noise):
        augmentation = type("Augmentation", (), {"flip": True, "__bool__": lambda self: False})()

    ours = model(**STAGED | {"first_stage": 0})
    source = Flipped((1, 8, 8), 17)
    quiet = {"limit_val_batches": 0, "default_root_dir": tmp_path, "callbacks": [kept := Kept()], **QUIET}
    Trainer(max_steps=1, **quiet).fit(ours, datamodule=source)
    posterior, labels = kept.codes, kept.labels
    assert ours._kept is None
    x, y = source.sources["train"].x, source.sources["train"].labels
    expected = {
        (tuple(c.flatten().tolist()), int(k))
        for v in (x, x.flip(-1))
        for c, k in zip(ours.autoencoder.codes(v), y, strict=True)
    }
    assert {(tuple(c.flatten().tolist()), int(k)) for c, k in zip(posterior, labels, strict=True)} == expected
    assert len(posterior) == 2 * len(x)


@pytest.mark.parametrize("stop_at", [3, 6, 9])
@pytest.mark.parametrize("continuous", [False, True])
def test_a_run_broken_off_in_either_stage_goes_on_bit_for_bit(stop_at: int, continuous: bool, tmp_path: Path) -> None:
    options = STAGED | ({"autoencoder": partial(SPATIAL, optimizer=ADAM)} if continuous else {})
    options |= {"prior": partial(FlowMatching, width=8, optimizer=ADAM)} if continuous else {}
    whole = model(**options)
    fit(whole, tmp_path / "whole")
    fit(model(**options), tmp_path / "broken", stop_at=stop_at)
    torch.manual_seed(1)
    resumed = model(**options)
    fit(resumed, tmp_path / "resumed", ckpt_path=str(tmp_path / "broken" / "last.ckpt"))
    kept = [torch.load(tmp_path / run / "last.ckpt", weights_only=True) for run in ("whole", "resumed")]
    ours, theirs = ({name: k[name] for name in ("state_dict", "optimizer_states", "lr_schedulers")} for k in kept)
    assert kept[1]["stage"] == "prior"
    assert_same(theirs, ours)
    assert_same(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize(("stop_at", "begins"), [(3, 12), (9, 9), (12, 12)])
def test_a_run_that_goes_on_for_longer_has_schedules_as_long(stop_at: int, begins: int, tmp_path: Path) -> None:
    """In the second stage from where that begins; or from where the run was in it already."""
    fit(model(**STAGED), tmp_path, stop_at=stop_at)
    _, _, stages = fit(model(**STAGED), tmp_path / "longer", ckpt_path=str(tmp_path / "last.ckpt"), max_steps=24)
    spans = {"autoencoder": (0, 12), "prior": (begins, 24)}
    whole = SCHEDULE(torch.optim.SGD([torch.zeros(1)], 1.0), total_steps=10_000)
    rates = [(whole.step(), whole.get_last_lr()[0])[1] for _ in range(9_999)]
    for step, (stage, rate, _) in enumerate(stages.steps, start=stop_at):
        begin, end = spans[stage]
        place = (step + 1 - begin) / (end - begin)  # after the step
        assert rate == pytest.approx(rates[int(9_998 * place)], rel=0.01, abs=1e-5), step
    assert max(rate for stage, rate, _ in stages.steps if stage == "prior") > 5e-3


def test_the_classes_of_all_data_are_counted_however_few_the_first_stage_has_seen(tmp_path: Path) -> None:
    """After one batch of the first stage and one of the second, a class that neither had is drawn all the same."""
    ours, source = model(**STAGED), Noise((1, 8, 8), 17)
    quiet = {"limit_val_batches": 0, "default_root_dir": tmp_path, "callbacks": [until := Kept()], **QUIET}
    trainer = Trainer(max_steps=2, **quiet)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*the training data had no class")
        trainer.fit(ours, datamodule=source)
    labels = source.sources["train"].labels[:24]
    assert bool(ours.class_counts.all())
    kept = torch.stack([(until.labels == k).sum() for k in range(3)])
    assert int(kept.sum()) == len(labels)
    more = ours.class_counts - kept  # the batch of the second stage
    assert bool((more >= 0).all()) and int(more.sum()) <= 4


def test_what_does_not_fit_the_second_stage_is_refused_before_the_first(tmp_path: Path) -> None:
    class Nameless(Noise):
        def load(self, split: str) -> Any:
            return type(super().load(split))(super().load(split).x)

    stated = STAGED | {"prior": partial(STAGED["prior"], lr_scheduler=partial(SCHEDULE, total_steps=100))}
    for options, source, message in (
        (stated, Noise, "leave out total_steps"),
        (STAGED, Nameless, "labels"),
    ):
        trainer = Trainer(max_steps=12, default_root_dir=tmp_path, **QUIET)
        with pytest.raises(ValueError, match=message):
            trainer.fit(model(**options), datamodule=source((1, 8, 8), 17))
        assert trainer.global_step == 0


@pytest.mark.parametrize("trained", [False, True])
def test_what_stands_beside_the_data_is_of_no_account_where_there_are_no_classes(
    trained: bool, tmp_path: Path
) -> None:
    """Names of files, say, or masks."""
    named = [(x, f"{row}.png") for row, x in enumerate(data(12))]
    options = {"autoencoder": CODES((1, 8, 8), 17)} if trained else {"first_stage": 0.5}
    trainer = Trainer(max_steps=4, default_root_dir=tmp_path, **QUIET)
    trainer.fit(model(**options), torch.utils.data.DataLoader(named, batch_size=4))
    assert trainer.global_step == 4


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int) -> torch.Tensor:
        return data(10)[row]


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self) -> Any:
        return iter(lambda: data(1)[0], None)


ONLY = {"autoencoder": CODES((1, 8, 8), 17), "prior": STAGED["prior"]}
LOADER = partial(torch.utils.data.DataLoader, batch_size=2)


@pytest.mark.parametrize(
    ("loader", "limits", "rows"),
    [
        (LOADER(Rows()), {}, range(10)),
        (LOADER(Rows(), shuffle=True), {}, range(10)),
        (LOADER(Rows(), sampler=torch.utils.data.SubsetRandomSampler([1, 4, 6])), {}, [1, 4, 6]),
        (LOADER(Rows()), {"limit_train_batches": 1}, range(2)),
        (LOADER(Rows()), {"limit_train_batches": 0.4}, range(4)),
        (LOADER(Rows()), {"fast_dev_run": True}, range(2)),
        (LOADER(Endless()), {"limit_train_batches": 3}, [0] * 6),
    ],
)
def test_what_is_encoded_is_what_is_trained_on(loader: Any, limits: Any, rows: Any, tmp_path: Path) -> None:
    ours = model(**ONLY)
    Trainer(max_steps=1, default_root_dir=tmp_path, callbacks=[kept := Kept()], **QUIET, **limits).fit(ours, loader)
    expected = ours.autoencoder.codes(data(10)[list(rows)])
    assert sorted(kept.codes.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())


def test_a_loop_of_one_s_own_after_it_learns_from_what_it_is_given(tmp_path: Path) -> None:
    ours = model(**ONLY)
    Trainer(max_steps=1, default_root_dir=tmp_path, **QUIET).fit(ours, LOADER(Rows()))
    ours.train()
    losses = []
    for x in (torch.zeros(4, 1, 8, 8), data(4)):
        torch.manual_seed(0)
        losses.append(ours.objective(x, None)["loss"])
    assert not torch.equal(*losses)


def test_data_without_an_end_are_not_encoded(tmp_path: Path) -> None:
    trainer = Trainer(max_steps=1, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="nobody says how many they are; give the Trainer limit_train_batches"):
        trainer.fit(model(**ONLY), LOADER(Endless()))


def test_codes_are_of_data_as_training_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By way of the hooks of a transfer; and no other device's random numbers begin anew."""

    class Bytes(Noise):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return 1 - batch[0], batch[1]

    seeded_elsewhere: list[int] = []
    ours, source = model(**ONLY), Bytes((1, 8, 8), 17)

    def encode(**options: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "manual_seed_all", seeded_elsewhere.append)
            type(ours)._keep_codes(ours, **options)

    ours._keep_codes = encode
    quiet = {"limit_val_batches": 0, "default_root_dir": tmp_path, "callbacks": [kept := Kept()], **QUIET}
    Trainer(max_steps=1, **quiet).fit(ours, datamodule=source)
    assert torch.equal(kept.codes.long(), ours.autoencoder.codes(1 - source.sources["train"].x))
    assert not seeded_elsewhere


@pytest.mark.parametrize("staged", [True, False])
def test_the_variances_of_a_prior_are_fitted_to_codes(staged: bool, tmp_path: Path) -> None:
    """As a DDPM of images has them without being asked; a run that goes on has what it was shown."""
    prior = partial(DDPM, width=8, **({"optimizer": ADAM} if staged else {}))
    options = {"autoencoder": partial(SPATIAL, optimizer=ADAM), "first_stage": 0.5} if staged else {}
    options = {"autoencoder": SPATIAL, "prior": prior} | options
    whole, resumed = model(**options), model(**options)
    fit(whole, tmp_path / "whole")
    assert bool((whole.prior.log_errors != 0).all()) and "not fitted" not in whole.log_prob_protocol
    fit(model(**options), tmp_path / "broken", stop_at=9)
    fit(resumed, tmp_path / "resumed", ckpt_path=str(tmp_path / "broken" / "last.ckpt"))
    assert_same(resumed.state_dict(), whole.state_dict())


def test_a_codebook_is_an_average_already(tmp_path: Path) -> None:
    ours = model(autoencoder=partial(CODES, quantiser=VQ(8, 2)))
    _, ema, _ = fit(ours, tmp_path)
    assert any(name.startswith("autoencoder.encoder") for name in ema._places)
    assert not any("quantiser" in name for name in ema._places)


def test_each_part_has_a_name_of_its_own() -> None:
    ours = model(autoencoder=SPATIAL, prior=partial(VAE, network="mlp", width=8, depth=1, latent_dim=2))
    assert set(ours.parts()) == {"encoder", "decoder", "prior_encoder", "prior_decoder"}
    assert ours.parts()["decoder"].model is ours.autoencoder and ours.parts()["prior_decoder"].model is ours.prior


def test_a_share_of_a_training_without_end_is_refused(tmp_path: Path) -> None:
    trainer = Trainer(max_epochs=-1, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"first_stage=0\.5 is a share of training, which has no end"):
        trainer.fit(model(**STAGED | {"autoencoder": CODES}), datamodule=Noise((1, 8, 8), 17))


# ---- a trained autoencoder, and entries


@pytest.mark.parametrize("as_", ["module", "folder"])
def test_a_trained_autoencoder_is_given_and_stays(as_: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    tokenizer = CODES((1, 8, 8), 17).eval()
    given = tokenizer if as_ == "module" else str(genzoo.publish(tokenizer, "a/tokenizer", to=tmp_path / "tokenizer"))
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    ours = model(autoencoder=given, prior=STAGED["prior"])
    _, _, stages = fit(ours, tmp_path)
    assert stages.moved == [{"prior"}] * 12
    assert_same(dict(ours.autoencoder.state_dict()), before)
    assert ours.unstated == [] and ours.hparams["autoencoder"]["class_path"] == "genzoo.zoo.QuantisedAutoencoder"
    again = type(ours).load_from_checkpoint(tmp_path / "last.ckpt").eval()
    assert again.stage == "prior" and not any(p.requires_grad for p in again.autoencoder.parameters())
    assert torch.equal(
        again.log_prob(data(4), generator=PerDatum(data(4))),
        ours.eval().log_prob(data(4), generator=PerDatum(data(4))),
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        STAGED,
        {"autoencoder": SPATIAL, "prior": partial(FlowMatching, width=8)},
    ],
)
def test_an_entry_holds_both_parts(options: dict[str, Any], tmp_path: Path) -> None:
    ours, x = model(**options), data(4)
    loaded = genzoo.load(genzoo.publish(ours, "a/latent", to=tmp_path / "entry"))
    assert torch.equal(loaded.log_prob(x, generator=PerDatum(x)), ours.log_prob(x, generator=PerDatum(x)))
    assert torch.equal(loaded.sample(3, generator=seeded()), ours.sample(3, generator=seeded()))


def test_no_file_opens_another() -> None:
    block = {
        "class_path": "genzoo.zoo.LatentModel",
        "init_args": {"shape": [1, 8, 8], "levels": 17, "autoencoder": "a/b"},
    }
    with pytest.raises(ValueError, match="autoencoder is 'a/b', but an entry holds all its parts itself"):
        build(block, model_classes())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"autoencoder": Autoencoder}, "codes that are a grid, but was given Autoencoder"),
        ({"autoencoder": VAE}, "codes that are a grid, but was given VAE"),
        ({"prior": GAN}, "and has a log_prob, which GAN does not"),
        (
            {"prior": partial(FlowMatching, width=8)},
            "FlowMatching takes the numbers of codes for amounts.*Choose GPT",
        ),
        ({"prior": partial(VAE, width=8)}, "VAE takes the numbers of codes for amounts"),
        ({"prior": partial(PixelCNN, channels=8, distribution="logistic_mixture")}, "PixelCNN takes the numbers"),
        ({"first_stage": 1.0}, "first_stage=1.0: a share of training"),
        ({"first_stage": 0.5, "optimizer": ADAM}, "each has its own"),
        ({"autoencoder": partial(CODES, optimizer=ADAM)}, "both parts learn at once, .* Quantised"),
        ({"prior": partial(SMALL, lr_scheduler=SCHEDULE)}, "both parts learn at once, .* GPT states its own"),
        ({"conditional": True, "num_classes": 3, "prior": QuantisedAutoencoder}, "takes no classes"),
        ({"prior": lambda shape, levels: SMALL(shape, levels)}, "give a class, or a functools.partial of one"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**options)


def test_an_autoencoder_of_other_data_is_refused() -> None:
    tokenizer = CODES((1, 8, 8), 256)
    with pytest.raises(ValueError, match=r"for data of shape=\(1, 8, 8\), levels=256, but these have"):
        model(autoencoder=tokenizer)
    with pytest.raises(ValueError, match="the autoencoder is trained, and has no stage"):
        model(autoencoder=CODES((1, 8, 8), 17), first_stage=0.5)


@pytest.mark.parametrize("prior", [GPT, partial(PixelCNN, channels=8, depth=1), partial(MaskedDiffusion, width=16)])
def test_in_double_precision_codes_are_too(prior: Callable[..., Any]) -> None:
    """Codes that are an image of one channel are numbers, which the prior takes in its own precision."""
    tokenizer = partial(QuantisedAutoencoder, factor=2, width=4, quantiser=FSQ([2, 2]))
    model = LatentModel((1, 8, 8), 4, autoencoder=tokenizer, prior=prior).eval()
    x = torch.randint(4, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 3
    single, codes = model.log_prob(x, generator=PerDatum(x)), model.autoencoder.codes(x)
    model.double()
    assert torch.equal(model.autoencoder.codes(x.double()), codes)
    double = model.log_prob(x.double(), generator=PerDatum(x))
    drawn = isinstance(model.prior, MaskedDiffusion)  # an estimate from noise that is other numbers in doubles
    torch.testing.assert_close(double, single.double(), rtol=0.02 if drawn else 1e-4, atol=0)
    assert model.complete(x.double(), torch.zeros(x.shape, dtype=torch.bool)).shape == (1, 2, 1, 8, 8)


class WithOwnName(LatentModel):
    """Takes for a name what it extends takes a builder for, and hands on the rest."""

    def __init__(self, shape: Any, levels: Any, *, autoencoder: str = "small", **rest: Any) -> None:
        width = {"small": 4, "large": 8}[autoencoder]
        super().__init__(shape, levels, autoencoder=partial(QuantisedAutoencoder, factor=2, width=width), **rest)


def test_an_entry_of_a_class_that_extends_ours_is_built_as_that_one_says() -> None:
    classes = model_classes() | {"mine.WithOwnName": WithOwnName}
    prior = {"class_path": "genzoo.zoo.GPT", "init_args": {"width": 16, "depth": 1, "heads": 1}}
    block = {"class_path": "mine.WithOwnName", "init_args": {"shape": [3, 8, 8], "levels": 17, "prior": prior}}
    block["init_args"]["autoencoder"] = "large"
    model = build(block, classes)
    assert type(model.prior) is GPT and model.autoencoder.hparams["width"] == 8
