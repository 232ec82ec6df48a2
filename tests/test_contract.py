"""One contract over every family: a new family is tested by adding its line to FAMILIES."""

import inspect
import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from genzoo.zoo import (
    DDPM,
    GAN,
    GPT,
    MADE,
    VAE,
    Autoencoder,
    DenoisingAutoencoder,
    FlowMatching,
    PerDatum,
    PixelCNN,
    ScoreModel,
    WaveNet,
)
from genzoo.zoo.interface import (
    Completes,
    HasLatents,
    HasLogProb,
    Interpolates,
    Inverts,
    Samples,
    SamplesInSteps,
    ScoresAnomalies,
    ZooModule,
)
from genzoo.zoo.modality import from_codes

IMAGES = [((1, 8, 8), 17), ((1, 8, 8), 2), ((3, 8, 8), 256), ((1, 7, 9), 256)]
POINTS = [((2,), None)]
TOKENS = [((12,), 11)]
WAVEFORMS = [((1, 40), 256)]
CAPABILITIES = {
    Samples,
    SamplesInSteps,
    HasLogProb,
    ScoresAnomalies,
    Completes,
    HasLatents,
    Interpolates,
    Inverts,
}
DIFFUSES = {Samples, SamplesInSteps, HasLogProb, ScoresAnomalies, Completes, Interpolates, Inverts}
# a family, the data that it is for, and what it can do
FAMILIES = [
    (MADE, IMAGES[:2] + TOKENS + POINTS, {Samples, SamplesInSteps, HasLogProb, ScoresAnomalies, Completes}),
    (PixelCNN, IMAGES, {Samples, SamplesInSteps, HasLogProb, ScoresAnomalies, Completes}),
    (GPT, TOKENS, {Samples, SamplesInSteps, HasLogProb, ScoresAnomalies, Completes}),
    (WaveNet, WAVEFORMS, {Samples, SamplesInSteps, HasLogProb, ScoresAnomalies, Completes}),
    (VAE, IMAGES + POINTS, {Samples, HasLogProb, ScoresAnomalies, Completes, HasLatents, Interpolates}),
    (Autoencoder, IMAGES + POINTS, {ScoresAnomalies, Completes, HasLatents, Interpolates}),
    (DenoisingAutoencoder, IMAGES[:1] + POINTS, {ScoresAnomalies, Completes, HasLatents, Interpolates}),
    (GAN, IMAGES + POINTS + WAVEFORMS, {Samples, ScoresAnomalies, Completes, Interpolates, Inverts}),
    (DDPM, IMAGES[1::2] + POINTS, DIFFUSES),
    (ScoreModel, IMAGES[:1] + POINTS, DIFFUSES),
    (FlowMatching, IMAGES[2:3] + POINTS, DIFFUSES),
]
CASES = [(family, shape, levels) for family, data, _ in FAMILIES for shape, levels in data]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}-{case[2]}")
def case(request):
    """A family built from shape and levels alone, and a batch for it."""
    family, shape, levels = request.param
    torch.manual_seed(0)
    model = family(shape=shape, levels=levels).eval()
    return model, torch.randn(5, *shape) if levels is None else from_codes(
        torch.randint(levels, (5, *shape)), shape, levels
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def needs(model, capability):
    if not isinstance(model, capability):
        pytest.skip(f"{type(model).__name__} does not claim {capability.__name__}")


@pytest.mark.parametrize(("family", "data", "claimed"), FAMILIES)
def test_capabilities_are_those_claimed(family, data, claimed):
    model = family(shape=data[0][0], levels=data[0][1])
    assert {c for c in CAPABILITIES if isinstance(model, c)} == claimed


def test_samples(case):
    model, _ = case
    needs(model, Samples)
    a, b, c = model.sample(4, generator=seeded()), model.sample(4, generator=seeded()), model.sample(4)
    assert a.shape == (4, *model.shape)
    assert a.dtype == (torch.int64 if model.modality == "tokens" else torch.float32)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not a.requires_grad
    model.check(a)


def test_the_last_frame_of_a_sampling_path_is_the_sample(case):
    model, _ = case
    needs(model, SamplesInSteps)
    path = model.sample_path(3, num_frames=4, generator=seeded())
    assert path.shape == (4, 3, *model.shape)
    assert torch.equal(path[-1], model.sample(3, generator=seeded()))
    assert not torch.equal(path[0], path[-1])


def test_interpolation_has_both_ends(case):
    model, x = case
    needs(model, Interpolates)
    a, b = x[:2], x[2:4]
    line = model.interpolate(a, b, 3)
    assert line.shape == (3, *a.shape)
    torch.testing.assert_close(line[-1], model.interpolate(b, a, 3)[0], rtol=1e-3, atol=1e-3)


def test_inversion(case):
    model, x = case
    needs(model, Inverts)
    z = model.invert(x)
    assert len(z) == 5
    assert torch.equal(z, model.invert(x))


def test_likelihood(case):
    model, x = case
    needs(model, HasLogProb)
    assert model.log_prob_kind in ("exact", "lower_bound", "estimate")
    value = model.log_prob(x, num_particles=3, generator=PerDatum(x))
    assert value.shape == (5,)
    assert bool(torch.isfinite(value).all())
    assert model.levels is None or bool((value <= 1e-4).all())
    bits = model.bits_per_dim(x, num_particles=3, generator=PerDatum(x))
    torch.testing.assert_close(bits, -value / (math.prod(model.shape) * math.log(2)))
    alone = torch.cat([model.log_prob(v[None], num_particles=3, generator=PerDatum(v[None])) for v in x])
    torch.testing.assert_close(alone, value, rtol=1e-5, atol=1e-4)


def test_anomaly_scores(case):
    model, x = case
    needs(model, ScoresAnomalies)
    score = model.anomaly_score(x)
    assert score.shape == (5,)
    assert torch.equal(score, model.anomaly_score(x))
    torch.testing.assert_close(model.anomaly_score(x[2:3]), score[2:3], rtol=1e-4, atol=1e-4)


def test_completion(case):
    model, x = case
    needs(model, Completes)
    for known in (torch.rand(x.shape) < 0.5, torch.rand(model.shape) < 0.5):
        out = model.complete(x, known, num_samples=2, generator=seeded())
        assert out.shape == (2, *x.shape)
        mask = known.expand(x.shape)
        assert torch.equal(out[:, mask], x[mask].expand(2, -1))
        assert torch.equal(out, model.complete(x, known, num_samples=2, generator=seeded()))
        model.check(out.flatten(0, 1))
    everything = torch.ones(model.shape, dtype=torch.bool)
    assert torch.equal(model.complete(x, everything), x[None])


def test_latents(case):
    model, x = case
    needs(model, HasLatents)
    z = model.encode(x).mean
    assert z.shape[0] == 5
    assert z.ndim == 2
    assert model.reconstruct(x).shape == x.shape
    torch.testing.assert_close(model.reconstruct(x), model.decode(z).mean)
    assert model.interpolate(x, x.flip(0), 3).shape == (3, *x.shape)
    assert model.traverse(x, 0, [-1.0, 0.0, 1.0]).shape == (3, *x.shape)


def test_what_is_no_data_of_the_model_is_refused_by_every_capability(case):
    model, x = case
    tokens = model.modality == "tokens"
    refused = [
        (torch.cat([x, x], -1), ValueError, "built for data of shape"),
        (x[0], ValueError, "built for data of shape"),
        (x[:0], ValueError, "empty batch"),
        (x.float() if tokens else x.long(), TypeError, "torch.float32" if tokens else "torch.int64"),
        (x + model.levels, ValueError, "vocabulary") if tokens else (x * torch.nan, ValueError, "5 of 5 data.* NaN"),
    ]
    if model.levels is not None and not tokens:  # beyond the range, at either end, by little or by much
        beyond = [x + 1.01 - x.max(), x - 1.01 - x.min(), 3 * x + 2, 255 * x + 2]
        refused += [(bad, ValueError, r"takes values in \[.*Undo any normalisation") for bad in beyond]
    names = ("check", "log_prob", "bits_per_dim", "anomaly_score", "encode", "reconstruct", "invert")
    methods = [getattr(model, name) for name in names if hasattr(model, name)]
    if isinstance(model, Completes):
        methods.append(lambda bad: model.complete(bad, torch.tensor(True)))
    if isinstance(model, Interpolates):
        methods.append(lambda bad: model.interpolate(bad, bad, 3))
    if isinstance(model, HasLatents):
        methods.append(lambda bad: model.traverse(bad, 0, [0.0]))
    for bad, error, message in refused:
        for method in methods:
            with pytest.raises(error, match=message):
                method(bad)


def test_what_rounding_takes_out_of_range_is_no_mistake(case):
    model, x = case
    needs(model, HasLatents)
    top = torch.full_like(x, 1 + 1e-6)  # as an expected value may come out, a sum over the levels
    assert model.reconstruct(model.reconstruct(top)).shape == x.shape


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(case, number):
    model, x = case
    given = {"sample": (2,), "log_prob": (x,), "bits_per_dim": (x,), "anomaly_score": (x,)}
    given["complete"] = (x, torch.zeros_like(x, dtype=torch.bool))
    for name, arguments in given.items():
        taken = inspect.signature(getattr(model, name)).parameters if hasattr(model, name) else {}
        for argument in (a for a, p in taken.items() if "float" in str(p.annotation)):
            with pytest.raises(ValueError, match=f"{argument}={number}"):
                getattr(model, name)(*arguments, **{argument: number})
    if isinstance(model, HasLatents):
        with pytest.raises(ValueError, match="set to finite numbers"):
            model.traverse(x, 0, [0.0, number])


def test_an_interpolation_that_cannot_be_is_refused(case):
    model, x = case
    needs(model, Interpolates)
    with pytest.raises(ValueError, match="goes from each datum of a to the same one of b"):
        model.interpolate(x[:2], x[:3], 3)
    with pytest.raises(ValueError, match="steps=1"):
        model.interpolate(x, x, 1)


@pytest.mark.parametrize("num_samples", [0, -1, 2.5])
def test_numbers_that_count_no_samples_are_refused(case, num_samples):
    model, x = case
    message = f"num_samples={num_samples}: give a whole number"
    if isinstance(model, Samples):
        with pytest.raises(ValueError, match=message):
            model.sample(num_samples)
    with pytest.raises(ValueError, match=message):
        model.complete(x, torch.zeros_like(x, dtype=torch.bool), num_samples=num_samples)


def test_completions_of_a_datum_need_not_depend_on_the_others(case):
    model, x = case
    needs(model, Completes)
    x, known = x[:2], torch.rand(model.shape) < 0.5
    out = model.complete(x, known, num_samples=2, generator=PerDatum(x))
    alone = model.complete(x[1:], known, num_samples=2, generator=PerDatum(x[1:]))
    first = model.complete(x, known, generator=PerDatum(x))
    for ours, theirs in ((out[:, 1:], alone), (out[:1], first)):  # but for what rounding tips over
        assert float(torch.isclose(ours, theirs, atol=1e-3).double().mean()) > 0.9


def test_a_model_in_double_precision_takes_its_own_samples(case):
    model, _ = case
    needs(model, Samples)
    x = model.double().sample(2, generator=seeded())
    model.check(x)
    if isinstance(model, HasLogProb):
        assert model.log_prob(x).dtype == torch.float64


def test_every_named_parameter_gets_a_gradient(case):
    model, x = case
    model.train()
    model.objective(x, torch.zeros(5, dtype=torch.long))["loss"].mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


def test_training_and_evaluation_quantities_are_per_datum(case):
    model, x = case
    labels = torch.zeros(5, dtype=torch.long)
    for quantities in (model.objective(x, labels), model.evaluation(x, labels, PerDatum(x))):
        assert all(value.shape == (5,) for value in quantities.values())


def test_a_bare_trainer_fits_saves_and_loads_it(case, tmp_path):
    model, x = case
    data = DataLoader(TensorDataset(x, torch.zeros(5, dtype=torch.long)), batch_size=2)
    trainer = Trainer(
        max_epochs=1,
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = [p.detach().clone() for p in model.parameters()]
    trainer.fit(model, data, data)
    assert any(not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = type(model).load_from_checkpoint(tmp_path / "model.ckpt").eval()
    model.eval()
    assert (again.shape, again.levels) == (model.shape, model.levels)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    if isinstance(model, HasLogProb):
        ours, theirs = (m.log_prob(x, generator=PerDatum(x)) for m in (model, again))
        assert torch.equal(ours, theirs)


def test_it_says_what_it_was_built_from(case):
    model, _ = case
    assert isinstance(model, ZooModule)
    assert model.hparams["shape"] == list(model.shape)
    assert model.hparams["_class_path"].startswith("genzoo.zoo.")
    assert model.unstated == []
