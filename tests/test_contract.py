"""One contract over every family: each test runs on the families that claim what it tests.

A new family is tested by adding its line to FAMILIES, in `families.py`.
"""

import copy
import inspect
import math
import warnings
from functools import partial

import pytest
import torch
from families import CAPABILITIES, CASES, CONDITIONAL, FIRST, OTHER_NETWORKS, OTHER_PARTS, Case, few_steps
from lightning.pytorch import Trainer
from thorough import some
from torch.utils.data import DataLoader, TensorDataset

from genzoo.zoo import (
    DDPM,
    GAN,
    GPT,
    MADE,
    VAE,
    Autoencoder,
    Classifier,
    LatentModel,
    MaskedDiffusion,
    PerDatum,
    QuantisedAutoencoder,
)
from genzoo.zoo.interface import (
    Completes,
    HasCodes,
    HasLatents,
    HasLogProb,
    Interpolates,
    Inverts,
    Samples,
    SamplesInSteps,
    ScoresAnomalies,
)
from genzoo.zoo.mixins import ConditionalMixin, is_conditional
from genzoo.zoo.module import ZooModule
from genzoo.zoo.value_range import plain_range

CLAIMED = {case.family: case.claimed for case in CASES}
LIKELY = [case for case in CASES if HasLogProb in case.claimed]


def claiming(*capabilities):
    """The test runs on every family, on all its kinds of data, that claims these."""
    return on([case for case in CASES if case.claimed.issuperset(capabilities)])


def once(*capabilities):
    """The same, but for `make test` on one kind of images for each family, and on what has two levels or none."""
    cases = [case for case in CASES if case.claimed.issuperset(capabilities)]
    chosen = FIRST + OTHER_NETWORKS + OTHER_PARTS
    return on(some(cases, lambda case: case in chosen or case.levels in (2, None)))


def on(cases):
    """The test runs on these."""
    return pytest.mark.parametrize("case", cases, ids=str, indirect=True)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    """What holds of few holds of many."""
    few_steps(monkeypatch, flow=8, steps=4, repeats=2)
    for family in (VAE, Autoencoder):
        monkeypatch.setattr(family, "completion_sweeps", 8)


@pytest.fixture
def case(request):
    """A family built from shape and levels alone, and a batch for it."""
    model = request.param.build().eval()
    if isinstance(model, MaskedDiffusion):
        model.steps = 8
    return model, request.param.data(5)


def trainer(folder, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, max_epochs=1, **quiet, **options)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("case", CASES + CONDITIONAL, ids=str)
def test_capabilities_are_those_claimed(case):
    model = case.build()
    assert {c for c in CAPABILITIES if isinstance(model, c)} == case.claimed


@claiming(Samples)
def test_samples(case):
    model, _ = case
    a, b, c = model.sample(4, generator=seeded()), model.sample(4, generator=seeded()), model.sample(4)
    assert a.shape == (4, *model.shape)
    assert a.dtype == (torch.int64 if model.modality == "tokens" else torch.float32)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not a.requires_grad
    model.check(a)


@claiming(SamplesInSteps)
def test_the_last_frame_of_a_sampling_path_is_the_sample(case):
    model, _ = case
    path = model.sample_path(3, num_frames=4, generator=seeded())
    assert path.shape == (4, 3, *model.shape)
    assert torch.equal(path[-1], model.sample(3, generator=seeded()))
    assert not torch.equal(path[0], path[-1])


def rendered(model, x):
    """What a model takes x for: its reconstruction, or what it generates from the latent of x."""
    if hasattr(model, "reconstruct"):
        return model.reconstruct(x)
    z = model.invert(x)
    return model.on_grid(model.render(z)) if isinstance(model, GAN) else model.generate(z)


@claiming(Interpolates)
def test_interpolation_has_both_ends(case):
    model, x = case
    a, b = x[:2], x[2:4]
    line = model.interpolate(a, b, 3)
    assert line.shape == (3, *a.shape)
    for end, x in ((line[0], a), (line[-1], b)):
        torch.testing.assert_close(end, rendered(model, x), rtol=1e-3, atol=5e-3)  # in few steps


@claiming(Inverts)
def test_inversion(case):
    model, x = case
    z = model.invert(x)
    assert len(z) == 5
    assert torch.equal(z, model.invert(x))


@claiming(HasLogProb)
def test_likelihood(case):
    model, x = case
    assert model.log_prob_kind in ("exact", "lower_bound", "estimate")
    value = model.log_prob(x, num_particles=3, generator=PerDatum(x))
    assert value.shape == (5,)
    assert bool(torch.isfinite(value).all())
    assert model.levels is None or bool((value <= 1e-4).all())
    alone = torch.cat([model.log_prob(v[None], num_particles=3, generator=PerDatum(v[None])) for v in x])
    torch.testing.assert_close(alone, value, rtol=1e-5, atol=1e-4)


@on([case for case in LIKELY if case.levels is not None])
def test_bits_of_discrete_data(case):
    model, x = case
    bits = model.bits_per_dim(x, num_particles=3, generator=PerDatum(x))
    nats = model.log_prob(x, num_particles=3, generator=PerDatum(x))
    torch.testing.assert_close(bits, -nats / (math.prod(model.shape) * math.log(2)))


@on([case for case in LIKELY if case.levels is None])
def test_a_density_has_no_bits(case, tmp_path):
    model, x = case
    with pytest.raises(ValueError, match="bits_per_dim: these data are continuous"):
        model.bits_per_dim(x)
    (logged,) = trainer(tmp_path).validate(model, DataLoader(x, batch_size=2), verbose=False)
    assert logged and "val/bits_per_dim" not in logged


@claiming(ScoresAnomalies)
def test_anomaly_scores(case):
    model, x = case
    score = model.anomaly_score(x)
    assert score.shape == (5,)
    assert torch.equal(score, model.anomaly_score(x))
    torch.testing.assert_close(model.anomaly_score(x[2:3]), score[2:3], rtol=1e-4, atol=1e-4)


@claiming(Completes)
def test_completion(case):
    model, x = case
    for known in (torch.rand(x.shape) < 0.5, torch.rand(model.shape) < 0.5):
        out = model.complete(x, known, num_samples=2, generator=seeded())
        assert out.shape == (2, *x.shape)
        mask = known.expand(x.shape)
        assert torch.equal(out[:, mask], x[mask].expand(2, -1))
        assert torch.equal(out, model.complete(x, known, num_samples=2, generator=seeded()))
        model.check(out.flatten(0, 1))
    everything = torch.ones(model.shape, dtype=torch.bool)
    assert torch.equal(model.complete(x, everything), x[None])


@claiming(HasLatents)
def test_latents(case):
    model, x = case
    z = model.encode(x).mean
    assert z.shape[0] == 5
    assert z.ndim == 2
    assert model.reconstruct(x).shape == x.shape
    torch.testing.assert_close(model.reconstruct(x), model.decode(z).mean)
    assert model.interpolate(x, x.flip(0), 3).shape == (3, *x.shape)
    assert model.traverse(x, 0, [-1.0, 0.0, 1.0]).shape == (3, *x.shape)


@claiming(HasCodes)
def test_codes(case):
    model, x = case
    codes = model.codes(x)
    assert codes.shape == (5, *model.grid) and codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < model.num_codes
    assert torch.equal(model.codes(x[2:3]), codes[2:3])
    assert model.reconstruct(x).shape == x.shape
    assert torch.equal(model.reconstruct(x), model.decode_codes(codes))
    assert not model.decode_codes(codes).requires_grad
    model.check(model.reconstruct(x), on_grid=False)
    refused = [
        (codes.float(), TypeError, "int64"),
        (codes[:, :1, :1, None], ValueError, "Codes have the shape"),
        (codes[:0], ValueError, "Codes have the shape"),
        (codes - codes.max() - 1, ValueError, r"Codes lie in \[0, "),
        (codes + model.num_codes, ValueError, r"Codes lie in \[0, "),
    ]
    for bad, error, message in refused:
        with pytest.raises(error, match=message):
            model.decode_codes(bad)


@claiming()
def test_what_is_no_data_of_the_model_is_refused_by_every_capability(case):
    model, x = case
    tokens = model.modality == "tokens"
    longer = [] if isinstance(model, GPT) else [(torch.cat([x, x], -1), ValueError, "built for data of shape")]
    refused = [
        *longer,  # texts may have any length
        (x[0], ValueError, "built for data of shape"),
        (x[:0], ValueError, "empty batch"),
        (x.float() if tokens else x.long(), TypeError, "torch.float32" if tokens else "torch.int64"),
        (x + model.levels, ValueError, "vocabulary") if tokens else (x * torch.nan, ValueError, "5 of 5 data.* NaN"),
    ]
    if model.levels is not None and not tokens:  # beyond the range, at either end, by little or by much
        beyond = [x + 1.01 - x.max(), x - 1.01 - x.min(), 3 * x + 2, 255 * x + 2]
        refused += [(bad, ValueError, r"takes values in \[.*Undo any normalisation") for bad in beyond]
    names = ["check", "log_prob", "anomaly_score", "encode", "reconstruct", "invert"]
    names += ["codes"] if isinstance(model, HasCodes) else []  # elsewhere it is a part, which takes checked data
    names += [] if model.levels is None else ["bits_per_dim"]
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


@claiming(HasLatents)
def test_what_rounding_takes_out_of_range_is_no_mistake(case):
    model, x = case
    top = torch.full_like(x, 1 + 1e-6)  # as an expected value may come out, a sum over the levels
    assert model.reconstruct(model.reconstruct(top)).shape == x.shape


@on(CASES)
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
        with pytest.raises(ValueError, match="set to each of one or more finite numbers"):
            model.traverse(x, 0, [0.0, number])


@claiming(Interpolates)
def test_an_interpolation_that_cannot_be_is_refused(case):
    model, x = case
    with pytest.raises(ValueError, match="goes from each datum of a to the same one of b"):
        model.interpolate(x[:2], x[:3], 3)
    with pytest.raises(ValueError, match="steps=1"):
        model.interpolate(x, x, 1)


@on([case for case in CASES + CONDITIONAL if Completes in case.claimed])
def test_completions_take_the_labels_of_a_conditional_model_alone(case):
    model, x = case
    known, labels = torch.rand(model.shape) < 0.5, torch.tensor([0, 2, 1, 0, 2])
    if is_conditional(model):
        out = model.complete(x, known, num_samples=2, labels=labels, generator=seeded())
        assert out.shape == (2, *x.shape) and torch.equal(out[:, :, known], x[:, known].expand(2, -1, -1))
        for wrong in (labels + 3, labels[:4]):
            with pytest.raises(ValueError, match=r"[Ll]abels"):
                model.complete(x, known, labels=wrong)
    else:
        with pytest.raises(ValueError, match=r"conditional"):
            model.complete(x, known, labels=labels)


@pytest.mark.parametrize("num_samples", [0, -1, 2.5])
@claiming(Samples)
def test_numbers_that_count_no_samples_are_refused(case, num_samples):
    model, _ = case
    with pytest.raises(ValueError, match=f"num_samples={num_samples}: give a whole number"):
        model.sample(num_samples)


@pytest.mark.parametrize("num_samples", [0, -1, 2.5])
@claiming(Completes)
def test_numbers_that_count_no_completions_are_refused(case, num_samples):
    model, x = case
    with pytest.raises(ValueError, match=f"num_samples={num_samples}: give a whole number"):
        model.complete(x, torch.zeros_like(x, dtype=torch.bool), num_samples=num_samples)


@claiming(Completes)
def test_completions_of_a_datum_need_not_depend_on_the_others(case):
    model, x = case
    x, known = x[:2], torch.rand(model.shape) < 0.5
    out = model.complete(x, known, num_samples=2, generator=PerDatum(x))
    alone = model.complete(x[1:], known, num_samples=2, generator=PerDatum(x[1:]))
    first = model.complete(x, known, generator=PerDatum(x))
    for ours, theirs in ((out[:, 1:], alone), (out[:1], first)):  # but for what rounding tips over
        assert float(torch.isclose(ours, theirs, atol=1e-3).double().mean()) > 0.9


@claiming(Samples)
def test_a_model_in_double_precision_takes_its_own_samples(case):
    model, _ = case
    model.check(model.double().sample(2, generator=seeded()))


@claiming(Samples, HasLogProb)
def test_a_model_in_double_precision_states_likelihoods_in_it(case):
    model, _ = case
    assert model.log_prob(model.double().sample(2, generator=seeded())).dtype == torch.float64


@claiming()
def test_every_named_parameter_gets_a_gradient(case):
    model, x = case
    model.train()
    model.objective(x, torch.zeros(5, dtype=torch.long))["loss"].mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


@claiming()
def test_training_and_evaluation_quantities_are_per_datum(case):
    model, x = case
    labels = torch.zeros(5, dtype=torch.long)
    for quantities in (model.objective(x, labels), model.evaluation(x, labels, PerDatum(x))):
        assert all(value.shape == (5,) for value in quantities.values())


@once()
def test_a_bare_trainer_fits_saves_and_loads_it(case, tmp_path):
    model, x = case
    data = DataLoader(TensorDataset(x, torch.zeros(5, dtype=torch.long)), batch_size=2)
    before, run = [p.detach().clone() for p in model.parameters()], trainer(tmp_path)
    run.fit(model, data, data)
    assert any(not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    run.save_checkpoint(tmp_path / "model.ckpt")
    again = type(model).load_from_checkpoint(tmp_path / "model.ckpt").eval()
    model.eval()
    assert (again.shape, again.levels) == (model.shape, model.levels)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    if isinstance(model, HasLogProb):
        ours, theirs = (m.log_prob(x, generator=PerDatum(x)) for m in (model, again))
        assert torch.equal(ours, theirs)


@claiming()
def test_it_says_what_it_was_built_from(case):
    model, _ = case
    assert isinstance(model, ZooModule)
    assert model.hparams["shape"] == list(model.shape)
    assert model.hparams["_class_path"].startswith("genzoo.zoo.")
    assert model.unstated == []


# ------------------------------------------------------------------------------------------------ half precision


def in_half_and_in_full(case):
    """The same weights, those of bfloat16, in bfloat16 and in float32."""
    model, x = case
    return model.bfloat16(), copy.deepcopy(model).float(), x


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("case", "measured"),
    [
        (Case(DDPM, (2,), None, frozenset()), ("log_errors",)),
        (Case(Autoencoder, (2,), None, frozenset(), {"density_components": 3}), ("weights", "means", "factors")),
        (Case(GAN, (2,), None, frozenset(), {"num_classes": 3, "conditional": True}), ("iteration", "class_counts")),
    ],
    ids=str,
)
def test_what_was_measured_stays_exact_in_half_precision(case, measured, half):
    """The errors of a chain, a density, how often something happened: buffers, but none of a network's."""
    model = case.build()
    buffers = {name: value for name, value in model.named_buffers() if name.split(".")[-1] in measured}
    assert len(buffers) == len(measured)
    for value in buffers.values():
        value.copy_(torch.rand(value.shape, generator=seeded()) * 1000)
    before = {name: value.clone() for name, value in buffers.items()}
    for converted in (model.to(half), copy.deepcopy(model).float().half(), model.bfloat16()):
        for name, value in before.items():
            kept = converted.get_buffer(name)
            assert kept.dtype == value.dtype and torch.equal(kept, value), name
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())


@torch.no_grad()
def test_the_likelihood_of_a_chain_in_half_precision_has_its_own_variances():
    """Those of full precision, where the network is the same in both, as one without weights is."""
    torch.manual_seed(0)
    model = DDPM((2,), None, width=8)
    for parameter in model.parameters():
        parameter.zero_()
    model.log_errors.copy_(torch.randn(model.log_errors.shape))
    x = torch.randn(6, 2)
    expected = model.log_prob(x, num_particles=4, generator=PerDatum(x))
    torch.testing.assert_close(model.bfloat16().log_prob(x, num_particles=4, generator=PerDatum(x)), expected)


@once(Samples)
def test_a_model_in_half_precision_takes_its_own_samples(case):
    model, full, _ = in_half_and_in_full(case)
    x = model.sample(4, generator=seeded())
    assert x.dtype == full.sample(4, generator=seeded()).dtype
    assert torch.equal(model.check(x), x)
    assert torch.equal(full.check(x), x)  # it lies on the grid of the data, which half precision does not hold


@once(HasLogProb)
def test_half_precision_rounds_the_networks_and_nothing_else(case):
    """What a network says in half precision is off in its third digit; in the likelihood that averages out."""
    model, full, x = in_half_and_in_full(case)
    ours, theirs = (m.log_prob(x, num_particles=2, generator=PerDatum(x)) for m in (model, full))
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=0.1)


@once(HasLogProb)
@torch.no_grad()
def test_a_network_that_half_precision_does_not_round_gives_the_likelihood_of_full_precision(case):
    """With no weights but the biases, in eighths, each network states the same in both; so must everything else."""
    model, x = case
    for parameter in model.parameters():
        eighths = torch.randint(-8, 9, parameter.shape, generator=seeded()) / 8
        parameter.copy_(eighths if parameter.ndim == 1 else torch.zeros_like(eighths))
    model, full, x = in_half_and_in_full(case)
    ours, theirs = (m.log_prob(x, num_particles=2, generator=PerDatum(x)) for m in (model, full))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-4)
    given_in_half = x.bfloat16() if x.is_floating_point() and model.modality != "points" else x
    ours = model.log_prob(given_in_half, num_particles=2, generator=PerDatum(x))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-4)


@once(Completes)
def test_completions_in_half_precision_are_data(case):
    model, full, x = in_half_and_in_full(case)
    known = torch.rand(x.shape, generator=seeded()) < 0.5
    out = model.complete(x, known, num_samples=2, generator=seeded())
    assert torch.equal(out[:, known], x[known].expand(2, -1))
    assert torch.equal(full.check(out.flatten(0, 1)), out.flatten(0, 1))


@on(FIRST)
def test_a_run_in_half_precision_trains_and_gives_the_figures_of_its_weights(case, tmp_path):
    model, x = case
    data, before = DataLoader(x, batch_size=3), [p.detach().bfloat16() for p in model.parameters()]
    trainer(tmp_path, precision="bf16-true").fit(model, data)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert any(not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    (ours,) = trainer(tmp_path, precision="bf16-true").validate(model, data, verbose=False)
    (theirs,) = trainer(tmp_path).validate(copy.deepcopy(model).float(), data, verbose=False)
    assert ours == pytest.approx(theirs, rel=1e-2, abs=0.05)


@once(ScoresAnomalies)
def test_scores_in_half_precision_are_those_of_full_precision_but_for_the_networks(case):
    model, full, x = in_half_and_in_full(case)
    ours, theirs = model.anomaly_score(x), full.anomaly_score(x)
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.1)


@once(HasLatents)
def test_codes_and_reconstructions_in_half_precision_are_in_full(case):
    model, full, x = in_half_and_in_full(case)
    for method in (lambda m: m.encode(x).mean, lambda m: m.reconstruct(x), lambda m: m.traverse(x, 0, [0.5, 1.0])):
        ours, theirs = method(model), method(full)
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.05)


@once(HasCodes)
def test_codes_in_half_precision_are_those_of_full_precision_but_for_what_rounding_tips_over(case):
    model, full, x = in_half_and_in_full(case)
    assert float((model.codes(x) == full.codes(x)).double().mean()) > 0.8
    codes = full.codes(x)
    ours, theirs = model.decode_codes(codes), full.decode_codes(codes)
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.05)


@once(Interpolates)
def test_interpolations_in_half_precision_are_in_full(case):
    model, full, x = in_half_and_in_full(case)
    ours, theirs = (m.interpolate(x[:2], x[2:4], 3) for m in (model, full))
    assert ours.dtype == theirs.dtype
    assert float(torch.isclose(ours, theirs, atol=0.1).double().mean()) > 0.9  # but for what rounding tips over


# ------------------------------------------------------------------------------------------ the classes' shares


@on([case for case in CONDITIONAL if Samples in case.claimed])
def test_samples_without_labels_have_the_classes_shares(case):
    """The same draws that were uniform before there were counts; each label by the inverse of the distribution."""
    model, _ = case
    draws = torch.rand(4000, generator=seeded())
    nobody = model.labels_to_sample(None, 4000, next(model.parameters()), seeded())
    assert torch.equal(nobody, (draws * 3).long())
    assert model.class_protocol == "uniformly"
    model.count_classes(torch.tensor([0, 0, 0, 2]))
    assert model.class_shares.tolist() == [0.75, 0, 0.25]
    assert model.class_log_prior.exp().tolist() == [0.75, 0, 0.25]
    labels = model.labels_to_sample(None, 4000, next(model.parameters()), seeded())
    assert torch.equal(labels, torch.where(draws < 0.75, 0, 2))
    assert torch.equal(model.sample(3, generator=seeded()), model.sample(3, generator=seeded()))
    assert model.class_protocol == "by their shares in the training data"
    model.class_prior = "uniform"
    assert model.class_protocol == "uniformly over those in the training data"
    assert model.class_shares.tolist() == [0.5, 0, 0.5]
    labels = model.labels_to_sample(None, 4000, next(model.parameters()), seeded())
    assert torch.equal(labels, torch.where(draws < 0.5, 0, 2))
    model.count_classes(torch.tensor([0, 0, 1, 2]))
    assert model.class_protocol == "uniformly"
    assert torch.equal(model.labels_to_sample(None, 4000, next(model.parameters()), seeded()), nobody)


@on(CONDITIONAL)
def test_weights_published_before_the_classes_were_counted_load(case):
    model, _ = case
    state = {key: value for key, value in model.state_dict().items() if key != "class_counts"}
    model.count_classes(torch.tensor([0, 0, 1]))
    model.load_state_dict(state, strict=True)
    assert model.class_counts.tolist() == [2, 1, 0]
    assert model.class_counts.dtype == torch.int64


@on(CONDITIONAL)
def test_the_classes_shares_can_be_told_to_be_uniform(case):
    model, _ = case
    uniform = type(model)(model.shape, model.levels, num_classes=3, conditional=True, class_prior="uniform")
    assert torch.equal(uniform.class_shares, torch.full((3,), 1 / 3, dtype=torch.float64))
    uniform.count_classes(torch.tensor([0, 0, 1]))  # of the third it has learned nothing
    assert torch.equal(uniform.class_shares, torch.tensor([0.5, 0.5, 0], dtype=torch.float64))
    assert torch.equal(uniform.class_log_prior.exp(), uniform.class_shares)
    assert uniform.hparams["class_prior"] == "uniform"
    with pytest.raises(ValueError, match="class_prior='even': choose 'training' or 'uniform'"):
        type(model)(model.shape, model.levels, num_classes=3, conditional=True, class_prior="even")
    with pytest.raises(ValueError, match=r"labels lie in \[0, 3\)"):
        uniform.count_classes(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="is unconditional"):
        type(model)(model.shape, model.levels).count_classes(torch.tensor([0]))


@on(CONDITIONAL)
def test_a_class_that_was_never_seen_is_named_once(case):
    """Whoever asks for it: not where labels were counted, nor where nothing was."""
    model, x = case
    calls = [lambda y: model.sample(5, labels=y), lambda y: model.evaluation(x, y, PerDatum(x))]
    if HasLogProb in CLAIMED[type(model)]:
        calls.append(lambda y: model.log_prob(x, labels=y))
    with torch.no_grad(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for call in calls:
            call(torch.tensor([0, 1, 2, 2, 1]))
        model.count_classes(torch.tensor([1, 1]))
        for call in calls:
            call(torch.tensor([1, 1, 1, 1, 1]))
        assert not [w for w in said if "training data" in str(w.message)]
        for call in calls:
            model._warned_of.clear()
            for _ in range(2):
                call(torch.tensor([1, 1, 2, 0, 2]))
    found = [str(w.message) for w in said if "training data" in str(w.message)]
    assert len(found) == len(calls) and all("had no class 0, 2, so" in message for message in found)


@on(FIRST)
def test_an_unconditional_model_says_that_it_has_no_classes(case):
    model, _ = case
    for name in ("class_counts", "class_shares", "class_log_prior", "class_protocol"):
        with pytest.raises(AttributeError) as said:
            getattr(model, name)
        if isinstance(model, ConditionalMixin):
            assert str(said.value) == f"{name}: this {type(model).__name__} is unconditional, so it has no classes."
        assert not hasattr(model, name)


@on([case for case in CASES if case.data(1).is_floating_point()])
def test_data_that_require_a_gradient_are_checked_without_a_word(case):
    model, x = case
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            checked = model.check(x.requires_grad_())
            assert torch.equal(checked, x) and checked.requires_grad
            assert plain_range(x) == plain_range(x.detach())
    finally:
        torch.set_warn_always(always)


SEVERAL = [
    Case(VAE, (1, 8, 8), 17, frozenset()),
    Case(QuantisedAutoencoder, (1, 8, 8), 17, frozenset()),
    Case(LatentModel, (1, 8, 8), 17, frozenset(), {"prior": partial(GPT, width=16, depth=1)}),
    Case(MADE, (2,), None, frozenset()),
    Case(Classifier, (1, 8, 8), 17, frozenset(), {"num_classes": 3}),
]


@pytest.mark.parametrize("case", SEVERAL, ids=str)
def test_several_loaders_of_validation_and_prediction(case, tmp_path):
    """Lightning tells each step which of them a batch is of."""
    model, labels = case.build().eval(), torch.tensor([0, 1, 2, 0])
    data = [case.data(4) for _ in range(2)]
    loaders = [DataLoader(TensorDataset(x, labels), batch_size=2) for x in data]
    run, name = trainer(tmp_path), "nll" if isinstance(model, HasLogProb) else "loss"
    for stage, measure in (("val", run.validate), ("test", run.test)):
        for k, figures in enumerate(measure(model, loaders, verbose=False)):
            expected = model.evaluation(data[k], labels, PerDatum(data[k]))[name].mean()
            assert figures[f"{stage}/{name}/dataloader_idx_{k}"] == pytest.approx(float(expected), rel=1e-4)
    assert [len(batches) for batches in run.predict(model, loaders)] == [2, 2]
