"""The data's contract, the hyperparameters' form, the mixins, and resuming, on a family as small as can be."""

import copy
import functools
import inspect
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from families import FIRST, random_data
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import genzoo
from genzoo import callbacks, datamodules, zoo
from genzoo.callbacks import EMA
from genzoo.datamodules import DigitsDataModule
from genzoo.zoo import DDPM, GAN, VAE, Bernoulli, Classifier, FlowMatching, Gaussian, networks
from genzoo.zoo.interface import Completes, HasLatents, HasLogProb, Samples, ScoresAnomalies
from genzoo.zoo.statement import arguments_of, as_config, class_path

SHAPE, LEVELS = (1, 4, 4), 17


def grey(n=8, levels=LEVELS):
    return torch.randint(levels, (n, *SHAPE)) / (levels - 1)


def trainer(folder, **kwargs):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", **{"max_epochs": 1, **quiet, **kwargs})


BAD = [
    (lambda x: x[0], ValueError, r"built for data of shape \(1, 4, 4\)"),
    (lambda x: x.flatten(1), ValueError, "but was given"),
    (lambda x: x.permute(0, 2, 3, 1), ValueError, "given"),
    (lambda x: (x * 255).byte(), TypeError, "Divide uint8 images by 255"),
    (lambda x: x.numpy(), TypeError, "ndarray"),
    (lambda x: x.where(x < 2, x).index_fill(0, torch.tensor([3]), torch.nan), ValueError, "1 of 8 data"),
    (lambda x: x * 2 - 1, ValueError, r"values in \[0, 1\]"),
    (lambda x: x * 0.97 + 0.01, ValueError, "grid k/16"),
]


@pytest.mark.parametrize(("spoil", "error", "message"), BAD)
def test_bad_data_get_one_clear_error_from_every_capability(spoil, error, message):
    model, x = VAE(SHAPE, LEVELS), spoil(grey().clamp(0.1) * 16 // 1 / 16)
    for method in (model.check, model.log_prob, model.bits_per_dim, model.anomaly_score):
        with pytest.raises(error, match=message):
            method(x)


@pytest.mark.parametrize(("spoil", "error", "message"), [b for b in BAD if b[2] not in ("ndarray",)])
def test_bad_data_stop_a_run_before_its_first_step(tmp_path, spoil, error, message):
    x = spoil(grey())
    if message.startswith("built"):
        x = x[None].expand(8, *x.shape).flatten(0, 1)
    model = VAE(SHAPE, LEVELS)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(error, match=message):
        trainer(tmp_path).fit(model, DataLoader(x, batch_size=8))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("family", [VAE, DDPM, FlowMatching, GAN])
def test_raw_tables_are_warned_of_once(tmp_path, family):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3e4, 1.0])
    model = family((3,), None)
    with pytest.warns(UserWarning) as caught:
        try:
            trainer(tmp_path, max_epochs=2).fit(model, DataLoader(x, batch_size=16))
        except ValueError as error:  # where it cannot be trained at all
            assert "the training diverged, and column 1 of the data" in str(error)
    said = [str(w.message) for w in caught if "of the data has the mean" in str(w.message)]
    assert len(said) == 1 and said[0].startswith(f"{family.__name__}: column 1 of the data")
    assert ("data_scale" in said[0]) == (family in (DDPM, FlowMatching))


def test_data_of_unit_scale_and_discrete_data_are_not_warned_of(tmp_path, recwarn):
    trainer(tmp_path).fit(VAE((3,), None), DataLoader(torch.randn(64, 3), batch_size=16))
    trainer(tmp_path).fit(VAE((1, 4, 4), 256), DataLoader(torch.zeros(64, 1, 4, 4), batch_size=16))
    assert not [w for w in recwarn if "of the data has the mean" in str(w.message)]


@pytest.mark.parametrize("family", [VAE, GAN])
def test_a_loss_that_is_no_number_is_not_blamed_on_the_data_unless_it_is_they(tmp_path, family):
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    x[20, 1] = torch.nan  # in the third batch; the first has been checked
    with pytest.raises(ValueError, match="1 of 8 data in the batch hold NaN") as error:
        trainer(tmp_path, log_every_n_steps=1).fit(family((2,), None), DataLoader(x, batch_size=8))
    assert "diverged" not in str(error.value)
    model = family((2,), None)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="the data are finite, so the training diverged") as error:
        trainer(tmp_path, log_every_n_steps=1).fit(model, DataLoader(torch.randn(32, 2), batch_size=8))
    assert "hold NaN" not in str(error.value)


def numpy_s(value):
    """A number as NumPy has it, and PyTorch a sequence's first; anything else as it is."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int | float):
        return np.int64(value) if isinstance(value, int) else np.float64(value)
    return tuple(map(numpy_s, value)) if isinstance(value, tuple | list) else value


def all_arguments(family):
    """The numbers among the defaults of a family's constructors, and of those that take its **arguments."""
    found = {}
    for cls in family.__mro__:
        parameters = inspect.signature(cls.__init__).parameters.values()
        for parameter in parameters:
            found.setdefault(parameter.name, parameter.default)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return {name: value for name, value in found.items() if isinstance(value, int | float | tuple)}


@pytest.mark.parametrize(("family", "shape", "levels"), [(c.family, c.shape, c.levels) for c in FIRST])
def test_numbers_from_numpy_are_stated_as_plain_ones(tmp_path, family, shape, levels):
    plain_ones = all_arguments(family)
    given = {name: numpy_s(value) for name, value in plain_ones.items()}
    torch.manual_seed(0)
    model = family(numpy_s(shape), numpy_s(levels), **given)
    as_given = family(shape, levels, **plain_ones)
    assert dict(model.hparams) == dict(as_given.hparams)
    data = TensorDataset(random_data(4, shape, levels), torch.arange(4) % 3)
    running = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    running.fit(model, DataLoader(data, batch_size=2))
    running.save_checkpoint(tmp_path / "numpy.ckpt")
    again = family.load_from_checkpoint(tmp_path / "numpy.ckpt")  # weights_only=True is Lightning's default
    assert torch.load(tmp_path / "numpy.ckpt", weights_only=True)["hyper_parameters"] == dict(as_given.hparams)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_the_numbers_of_optimisers_schedules_and_data_are_plain_in_a_checkpoint(tmp_path):
    adam = functools.partial(torch.optim.AdamW, lr=np.float64(1e-3), betas=(np.float64(0.5), 0.9))
    steps = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=np.int64(7), gamma=np.float64(0.5))
    model = VAE((1, 8, 8), 17, optimizer=adam, lr_scheduler=steps, latent_dim=torch.tensor(3))
    digits = DigitsDataModule(np.int64(32), val_size=np.int32(50), limit=np.int64(64), classes=[np.int8(3)])
    running = trainer(tmp_path, max_steps=np.int64(2), max_epochs=-1, callbacks=[EMA(decay=np.float64(0.9))])
    running.fit(model, datamodule=digits)
    running.save_checkpoint(tmp_path / "numpy.ckpt")
    kept = torch.load(tmp_path / "numpy.ckpt", weights_only=True)
    assert kept["hyper_parameters"]["latent_dim"] == 3 and type(kept["hyper_parameters"]["latent_dim"]) is int
    plain_digits = DigitsDataModule(32, val_size=50, limit=64, classes=[3])
    assert kept["datamodule_hyper_parameters"] == dict(plain_digits.hparams)
    resumed = trainer(tmp_path, max_steps=4, max_epochs=-1, callbacks=[EMA(decay=0.9)])
    again = VAE.load_from_checkpoint(tmp_path / "numpy.ckpt")
    resumed.fit(again, datamodule=digits, ckpt_path=tmp_path / "numpy.ckpt")
    assert resumed.global_step == 4
    entry = tmp_path / "entry"
    figure = {"name": "nll", "value": np.float32(1.5), "unit": "nats", "num_examples": np.int64(9)}
    genzoo.publish(model, "own/vae", to=entry, data=digits, metrics={"figures": [figure]})
    (kept_figure,) = json.loads((entry / "metrics.json").read_text())["figures"]
    assert kept_figure == {"name": "nll", "value": 1.5, "unit": "nats", "num_examples": 9}
    assert genzoo.load(entry).hparams["latent_dim"] == 3


@pytest.mark.parametrize("value", [np.int64(8), np.uint8(8), np.array(8), torch.tensor(8), 8])
def test_a_whole_number_is_stated_as_one(value):
    assert as_config([value]) == [8] and type(as_config(value)) is int


@pytest.mark.parametrize("value", [np.float64(0.5), np.float16(0.5), np.array(0.5), torch.tensor(0.5), 0.5])
def test_a_fraction_is_stated_as_one(value):
    assert as_config({"rate": value}) == {"rate": 0.5} and type(as_config(value)) is float


def test_what_is_no_number_is_stated_as_it_was():
    assert as_config(np.bool_(True)) is True and as_config(np.str_("a")) == "a" and as_config(Path("a/b")) == "a/b"
    for live in (np.arange(3), torch.ones(2), 1j * np.complex64(1)):
        with pytest.raises(TypeError, match="cannot be stated"):
            as_config(live)


def test_labels_out_of_range_stop_a_run_before_its_first_step(tmp_path):
    data = TensorDataset(grey(), torch.arange(8))
    with pytest.raises(ValueError, match="num_classes=5"):
        trainer(tmp_path).fit(Classifier(SHAPE, LEVELS, 5), DataLoader(data, batch_size=8))


@pytest.mark.parametrize("as_batch", [lambda x: x, lambda x: (x,), lambda x: (x, torch.zeros(len(x)))])
def test_a_batch_is_x_or_x_and_y(as_batch):
    x = grey()
    got, labels = VAE(SHAPE, LEVELS).unpack(as_batch(x), "train")
    assert torch.equal(got, x)
    assert (labels is None) == (not isinstance(as_batch(x), tuple) or len(as_batch(x)) == 1)


@pytest.mark.parametrize(
    ("known", "error", "message"),
    [
        (torch.ones(SHAPE), TypeError, "boolean"),
        ("all", TypeError, "str"),
        (torch.ones(3, 3, dtype=torch.bool), ValueError, "broadcast"),
    ],
)
def test_bad_masks_are_refused(known, error, message):
    with pytest.raises(error, match=message):
        VAE(SHAPE, LEVELS).complete(grey(), known)


def test_completion_never_reads_what_is_unknown():
    model, x = VAE(SHAPE, LEVELS).eval(), grey(2)
    known = torch.rand(SHAPE) < 0.5
    spoiled = torch.where(known, x, torch.nan)
    a, b = (model.complete(v, known, generator=torch.Generator().manual_seed(0)) for v in (x, spoiled))
    assert torch.equal(a, b)
    assert torch.equal(a[0][:, known], x[:, known])


def test_a_capability_that_a_model_lacks_is_a_method_that_it_lacks():
    model = Classifier(SHAPE, LEVELS, 3)
    for capability in (Samples, HasLogProb, ScoresAnomalies, Completes, HasLatents):
        assert not isinstance(model, capability)


# ------------------------------------------------------------------- weights published before a buffer existed


class Later(VAE):
    """A VAE of a later release, with a buffer that the weights of earlier ones lack."""

    def __init__(self, shape, levels):
        super().__init__(shape, levels, latent_dim=2, network="mlp", width=4, depth=1)
        self.register_later_buffer("answer", torch.tensor(42.0))


def test_weights_older_than_a_buffer_load_and_leave_it_alone(tmp_path):
    model, run = Later(SHAPE, LEVELS), trainer(tmp_path)
    run.fit(model, DataLoader(grey(), batch_size=8))
    run.save_checkpoint(tmp_path / "new.ckpt")
    checkpoint = torch.load(tmp_path / "new.ckpt", weights_only=True)
    old = {key: value for key, value in checkpoint["state_dict"].items() if key != "answer"}
    torch.save(checkpoint | {"state_dict": old}, tmp_path / "old.ckpt")

    again = Later.load_from_checkpoint(tmp_path / "old.ckpt", strict=True)
    assert float(again.answer) == 42
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in old.items())
    again.answer.fill_(7)
    again.load_state_dict(old, strict=True)
    assert float(again.answer) == 7
    again.load_state_dict(checkpoint["state_dict"], strict=True)
    assert float(again.answer) == 42
    with pytest.raises(RuntimeError, match=r"Missing key.* \"encoder"):
        again.load_state_dict({key: value for key, value in old.items() if not key.startswith("encoder")})


def test_a_model_within_another_module_is_completed_under_its_name():
    outer = nn.ModuleDict({"inner": Later(SHAPE, LEVELS)})
    old = {key: value for key, value in outer.state_dict().items() if key != "inner.answer"}
    outer.load_state_dict(old, strict=True)
    first = Later(SHAPE, LEVELS)
    first.inner = Later(SHAPE, LEVELS)
    names = set(first.state_dict())
    state = {key: value for key, value in first.state_dict().items() if not key.endswith("answer")}
    assert set(first.with_later_buffers(state)) == names > set(state)
    assert float(first.with_later_buffers(state | {"inner.answer": torch.tensor(1.0)})["inner.answer"]) == 1


# ------------------------------------------------------------------------------------------- hyperparameters


def test_arguments_in_a_files_form():
    assert as_config((1, 2)) == [1, 2]
    assert as_config(Gaussian(scale=0.1)) == {
        "class_path": "genzoo.zoo.Gaussian",
        "init_args": {"scale": 0.1},
    }
    adam = as_config(functools.partial(torch.optim.Adam, lr=0.1))
    assert adam == {"class_path": "torch.optim.adam.Adam", "init_args": {"lr": 0.1}}
    for live in (lambda p: p, nn.Linear(1, 1)):
        with pytest.raises(TypeError):
            as_config(live)


@pytest.mark.parametrize("package", [zoo, networks, datamodules, callbacks])
def test_a_class_is_stated_by_the_name_under_which_its_package_exports_it(package):
    classes = {name: getattr(package, name) for name in package.__all__}
    classes = {name: value for name, value in classes.items() if isinstance(value, type)}
    assert len(classes) > 2
    for name, cls in classes.items():
        assert class_path(cls) == f"{package.__name__}.{name}" != f"{cls.__module__}.{name}"


def test_a_class_that_no_package_of_ours_exports_is_stated_by_its_module():
    assert class_path(torch.optim.AdamW) == "torch.optim.adamw.AdamW"
    assert class_path(class_path.__class__) == "builtins.function"
    assert class_path(Later) == f"{__name__}.Later"


class Passing(VAE):
    def __init__(self, *args, kind="own", latent_dim=5, **kwargs):
        super().__init__(*args, latent_dim=latent_dim, **kwargs)


class Nothing(Passing):
    def __init__(self):
        super().__init__(SHAPE, 2, network="mlp", width=4)


def test_arguments_are_those_of_the_outermost_constructor_and_of_what_it_passes_on():
    bare = {name: value.default for name, value in inspect.signature(VAE).parameters.items()}
    assert arguments_of(VAE, (SHAPE,), {"levels": 2}) == bare | {"shape": SHAPE, "levels": 2}
    passed = arguments_of(Passing, (SHAPE,), {"levels": 2, "width": 4})
    assert passed == bare | {"shape": SHAPE, "levels": 2, "width": 4, "kind": "own", "latent_dim": 5}
    assert arguments_of(Nothing, (), {}) == {}
    model = Passing(SHAPE, 2, network="mlp", width=4, likelihood=Bernoulli())
    stated = {name: value for name, value in model.hparams.items() if not name.startswith("_")}
    assert stated == as_config(passed | {"network": "mlp", "likelihood": Bernoulli()})
    assert (Nothing().hparams.keys(), Nothing().latent_dim) == ({"_class_path", "_instantiator"}, 5)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_states_what_the_original_does(again):
    model = Passing(SHAPE, 2, network="mlp", width=4, depth=1)
    twin = again(model)
    assert twin.hparams == model.hparams
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_module_built_from_python_comes_back_from_its_checkpoint(tmp_path):
    torch.manual_seed(0)
    model = VAE(
        SHAPE,
        2,
        latent_dim=3,
        likelihood=Bernoulli(),
        optimizer=functools.partial(torch.optim.Adam, lr=0.123),
    )
    run = trainer(tmp_path)
    run.fit(model, DataLoader(grey(levels=2), batch_size=4))
    run.save_checkpoint(tmp_path / "model.ckpt")
    torch.load(tmp_path / "model.ckpt", weights_only=True)
    again = VAE.load_from_checkpoint(tmp_path / "model.ckpt")
    assert again.latent_dim == 3
    assert again.configure_optimizers().param_groups[0]["lr"] == 0.123
    x = grey(levels=2)
    again.eval(), model.eval()
    assert torch.equal(model.anomaly_score(x), again.anomaly_score(x))


def test_a_module_with_a_network_of_the_users_own_asks_for_it(tmp_path):
    def network():
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 6))

    model = VAE(SHAPE, 2, latent_dim=3, encoder=network(), optimizer=lambda p: torch.optim.SGD(p, 0.1))
    assert model.unstated == ["encoder"]
    run = trainer(tmp_path)
    run.fit(model, DataLoader(grey(levels=2), batch_size=4))
    run.save_checkpoint(tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"encoder=\.\.\."):
        VAE.load_from_checkpoint(tmp_path / "model.ckpt")
    again = VAE.load_from_checkpoint(tmp_path / "model.ckpt", encoder=network())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


# --------------------------------------------------------------------------------------------------- the steps


def test_the_mean_over_a_ragged_dataset_is_its_sum_over_n(tmp_path):
    x = grey(11)
    model = VAE(SHAPE, LEVELS).eval()
    logged = trainer(tmp_path).validate(model, DataLoader(x, batch_size=4), verbose=False)[0]
    whole = trainer(tmp_path).validate(model, DataLoader(x, batch_size=11), verbose=False)[0]
    terms, spent = ("nll", "elbo", "kl", "reconstruction", "bits_per_dim"), ("mutual_information", "marginal_kl")
    assert set(logged) == {f"val/{name}" for name in (*terms, *spent, "active_units")}
    assert logged["val/mutual_information"] + logged["val/marginal_kl"] == pytest.approx(logged["val/kl"], abs=1e-6)
    for name, value in logged.items():
        assert value == pytest.approx(whole[name], rel=1e-6, abs=1e-6)
    assert logged["val/bits_per_dim"] == pytest.approx(logged["val/nll"] / (16 * 0.6931471805599453), rel=1e-6)


def test_training_in_half_precision_sees_the_data_on_their_grid(tmp_path):
    """Lightning rounds each batch to bfloat16, of which k/16 + 1/255 are no numbers."""
    seen = []

    class Watching(VAE):
        def objective(self, x, labels):
            seen.append(x)
            return super().objective(x, labels)

    x = torch.randint(256, (8, *SHAPE)) / 255
    run = trainer(tmp_path, precision="bf16-true")
    run.fit(Watching(SHAPE, 256), DataLoader(x, batch_size=8), DataLoader(x, batch_size=8))
    assert torch.equal(seen[0], x) and seen[0].dtype == torch.float32
    assert float((x.bfloat16().float() - x).abs().max()) > 1e-3
    model = VAE(SHAPE, 256, network="mlp", width=8).eval().bfloat16()
    (logged,) = trainer(tmp_path, precision="bf16-true").validate(model, DataLoader(x, batch_size=8), verbose=False)
    full = copy.deepcopy(model).float()
    (expected,) = trainer(tmp_path).validate(full, DataLoader(x, batch_size=8), verbose=False)
    assert logged["val/nll"] == pytest.approx(expected["val/nll"], rel=1e-3)


def test_optimiser_and_schedule_come_from_arguments_and_count_steps(tmp_path):
    model = VAE(
        SHAPE,
        LEVELS,
        optimizer=functools.partial(torch.optim.SGD, lr=1e-3),
        lr_scheduler=functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
    )
    run = trainer(tmp_path)
    run.fit(model, DataLoader(grey(12), batch_size=4))
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.5**3)
    assert isinstance(VAE(SHAPE, LEVELS).configure_optimizers(), torch.optim.AdamW)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    model = VAE((2,), None, optimizer=functools.partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(ValueError, match=r"The loss is .* at step 1: .* diverged"):
        trainer(tmp_path, log_every_n_steps=1).fit(model, DataLoader(torch.randn(12, 2), batch_size=4))


def test_a_resumed_run_draws_the_random_numbers_it_would_have_drawn(tmp_path):
    data = DataLoader(grey(12), batch_size=4)  # takes a seed from the global state at the start of each epoch

    def build():
        torch.manual_seed(0)
        return VAE(SHAPE, LEVELS)

    whole = build()
    trainer(tmp_path, max_epochs=4).fit(whole, data)
    half = build()
    first = trainer(tmp_path, max_epochs=2)
    first.fit(half, data)
    first.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(99)
    resumed = VAE(SHAPE, LEVELS)
    trainer(tmp_path, max_epochs=4).fit(resumed, data, ckpt_path=tmp_path / "half.ckpt")
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())
