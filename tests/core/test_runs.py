"""`genzoo fit` and its kin, from the recipe to the files that a run leaves."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from running import QUIET

import genzoo
from genzoo.cli import main

Captured = pytest.CaptureFixture[str]

RECIPE = """\
# A very small VAE of digits.
model:
  class_path: VAE
  init_args:
    latent_dim: 2
    network: mlp
    width: 8
    depth: 1
    likelihood: {class_path: Categorical}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.01}}
data: {class_path: DigitsDataModule, init_args: {limit: 128}}
trainer: {max_epochs: 1, accelerator: cpu, log_every_n_steps: 1}
"""


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with the recipe `small.yaml` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path / "small.yaml"


def fit(*options: str, config: str = "small.yaml") -> Path:
    """Trains, and returns the folder of the run."""
    before = configurations()
    main(["fit", "--config", config, *QUIET, *options])
    (new,) = configurations() - before
    return new.parent


def configurations() -> set[Path]:
    """The config.yaml of each run; an entry that a run published has one, too."""
    return {path for path in Path("runs").glob("**/config.yaml") if path.parent.name != "entry"}


def checkpoint(run: Path) -> dict[str, Any]:
    (path,) = (run / "checkpoints").glob("*.ckpt")
    return torch.load(path, weights_only=True)


def logged(run: Path, figure: str) -> float:
    """The last value of a figure in the run's metrics.csv."""
    with (run / "metrics.csv").open() as file:
        return [float(row[figure]) for row in csv.DictReader(file) if row.get(figure)][-1]


def refused(capsys: Captured, *options: str, command: str = "fit") -> str:
    with pytest.raises(SystemExit) as ended:
        main([command, "--config", "small.yaml", *QUIET, *options])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("genzoo: error: ") and "Namespace" not in error and "<class" not in error
    assert not list(Path.cwd().glob("runs/**/*.ckpt"))
    return error


# ---- what a run leaves


def test_a_run_has_a_folder_of_its_own(capsys: Captured) -> None:
    first = fit()
    assert first.parent == Path("runs/small")
    assert {path.name for path in first.iterdir()} == {"checkpoints", "config.yaml", "hparams.yaml", "metrics.csv"}
    assert logged(first, "val/nll") > 0
    shown = capsys.readouterr().out
    assert str(first) in shown and "val/nll" in shown and "val/bits_per_dim" in shown
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    second = fit()
    assert second != first
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    assert not Path("lightning_logs").exists()


def test_the_resolved_configuration_repeats_the_run() -> None:
    first = fit("--model.latent_dim", "3")
    resolved = yaml.safe_load((first / "config.yaml").read_text())
    assert resolved["seed_everything"] == 0 and resolved["model"]["init_args"]["latent_dim"] == 3
    assert str(first) not in (first / "config.yaml").read_text()  # or it would overwrite the first
    second = fit(config=str(first / "config.yaml"))
    assert second.parent == first.parent  # known by the recipe's name again
    for key, value in checkpoint(first)["state_dict"].items():
        assert torch.equal(value, checkpoint(second)["state_dict"][key])


def test_two_runs_in_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("genzoo.fit.datetime", Clock)
    assert [fit().name for _ in range(2)] == ["2026-01-02_03-04-05", "2026-01-02_03-04-05_2"]


def test_a_recipe_is_found_by_its_name() -> None:
    run = fit("--trainer.max_steps=1", "--trainer.limit_val_batches=1", config="digits/classifier")
    assert run.parent == Path("runs/digits/classifier")


def test_later_configurations_override() -> None:
    Path("more.yaml").write_text("model: {init_args: {latent_dim: 5}}")
    run = fit("-c", "more.yaml")
    assert run.parent == Path("runs/small")
    assert checkpoint(run)["hyper_parameters"]["latent_dim"] == 5


def test_default_root_dir_moves_the_runs(tmp_path: Path) -> None:
    main(["fit", "--config=small.yaml", *QUIET, "--trainer.default_root_dir", "elsewhere"])
    assert len(list(Path("elsewhere/small").glob("*/checkpoints/*.ckpt"))) == 1 and not Path("runs").exists()


def test_a_dry_run_leaves_nothing() -> None:
    main(["fit", "--config", "small.yaml", *QUIET, "--trainer.fast_dev_run=true"])
    assert not list(Path("runs").rglob("*.*"))


def test_the_data_state_shape_and_levels() -> None:
    hparams = checkpoint(fit("--data.binarize=threshold", "--model.likelihood=Bernoulli"))["hyper_parameters"]
    assert tuple(hparams["shape"]) == (1, 8, 8)
    assert hparams["levels"] == 2 and "vocabulary" not in hparams  # a VAE takes no such argument


# ---- loggers


def test_without_a_logger() -> None:
    run = fit("--trainer.logger=false")
    assert {path.name for path in run.iterdir()} == {"checkpoints", "config.yaml"}


def test_tensorboard_is_one_flag_away() -> None:
    run = fit("--trainer.logger=TensorBoardLogger")
    assert list(run.glob("events.out.tfevents.*")) and (run / "checkpoints").is_dir()


def test_wandb_is_one_flag_away() -> None:
    import wandb

    wandb.teardown()  # it would remember the folder of an earlier test
    for _ in range(2):  # nor does the second clash with the first
        run = fit("--trainer.logger=WandbLogger", "--trainer.logger.offline=true", "--trainer.logger.project=zoo")
        wandb.finish()
        assert list(run.glob("wandb/offline-run-*/*.wandb"))
        assert {path.name for path in run.iterdir()} == {"checkpoints", "config.yaml", "wandb"}


# ---- checkpoints and the recipe


def test_the_recipe_wins_over_the_checkpoint() -> None:
    first = fit()
    (path,) = (first / "checkpoints").glob("*.ckpt")
    second = fit("--ckpt_path", str(path), "--trainer.max_epochs=2", "--model.beta=0.5")
    resumed = checkpoint(second)
    assert resumed["hyper_parameters"]["beta"] == 0.5
    assert resumed["global_step"] == 2 * checkpoint(first)["global_step"]


def test_resuming_is_going_on() -> None:
    whole = checkpoint(fit("--trainer.max_epochs=2"))
    (path,) = (fit() / "checkpoints").glob("*.ckpt")
    resumed = checkpoint(fit("--ckpt_path", str(path), "--trainer.max_epochs=2"))
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key


def test_measuring_needs_a_checkpoint(capsys: Captured) -> None:
    for command in ("validate", "test", "predict"):
        assert "random weights" in refused(capsys, command=command)
    assert "does not exist" in refused(capsys, "--ckpt_path=best", command="test")
    Path("cut.ckpt").write_bytes(b"PK\x03\x04")
    assert "cut short" in refused(capsys, "--ckpt_path=cut.ckpt")


def test_test_measures_the_checkpoint_and_touches_no_run(capsys: Captured) -> None:
    run = fit()
    (path,) = (run / "checkpoints").glob("*.ckpt")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    main(["test", "--config", "small.yaml", *QUIET, "--ckpt_path", str(path)])
    assert "test/nll" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_another_familys_checkpoint_is_refused(capsys: Captured) -> None:
    (path,) = (fit() / "checkpoints").glob("*.ckpt")
    with pytest.raises(SystemExit):
        main(["test", "--config", "digits/classifier", *QUIET, "--trainer.accelerator=cpu", "--ckpt_path", str(path)])
    assert "state_dict" in capsys.readouterr().err


def test_a_class_of_ones_own_from_training_to_sampling(capsys: Captured) -> None:
    Path("own_net.py").write_text(
        "from torch import nn\n"
        "class Encoder(nn.Sequential):\n"
        "    def __init__(self, width: int):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.SiLU(), nn.Linear(width, 4))\n"
    )
    run = fit("--model.encoder=own_net.Encoder", "--model.encoder.width=5")
    (path,) = (run / "checkpoints").glob("*.ckpt")
    publish = ["publish", "--ckpt_path", str(path), "--name", "own", "--to", "entry", "--device=cpu"]
    with pytest.raises(SystemExit):
        main([*publish, "--num_particles=1"])
    assert "--allow" in capsys.readouterr().err
    main([*publish, "--num_particles=1", "--allow=own_net.Encoder"])
    assert not Path("entry/learning.png").exists()  # the run had no Publish to film it
    main(["sample", "entry", "--allow", "own_net.Encoder", "--out", "grid.png", "--device=cpu"])
    assert Path("grid.png").is_file()


def test_a_hostile_checkpoint_is_not_published(capsys: Captured) -> None:
    run = fit()
    (path,) = (run / "checkpoints").glob("*.ckpt")
    hostile = torch.load(path, weights_only=True)
    hostile["hyper_parameters"]["likelihood"] = {"class_path": "os.system", "init_args": {"command": "touch pwned"}}
    torch.save(hostile, path)
    with pytest.raises(SystemExit):
        main(["publish", "--ckpt_path", str(path), "--name", "x", "--to", "entry"])
    assert "os.system" in capsys.readouterr().err
    assert not Path("pwned").exists() and not Path("entry").exists()


# ---- mistakes


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--model.widht=3", "'widht' is not accepted"),
        ("--model.latent_dim=null", "latent_dim is null, but int is expected"),
        ("--model.latent_dim=two", "expected int"),
        ("--model.latent_dim=0", "latent_dim=0"),
        ("--model=VEA", "no class is called VEA"),
        ("--model.likelihood=Bernoulli", "levels=17"),
        ("--data=DigitDataModule", "no class is called DigitDataModule"),
        ("--data.batch_size=0", "batch_size"),
        ("--data.binarize=maybe", "binarize"),
        ("--trainer.max_epoch=3", "--trainer.max_epoch"),
        ("--trainer.callbacks+=EAM", "no class is called EAM"),
        ("--model.optimizer.lr=-1", "learning rate"),
        ("--nonsense", "--nonsense"),
        ("--config=digits/vea", "neither a recipe nor the path"),
        ("--trainer.default_root_dir=s3://bucket/runs", "s3://bucket/runs: a run is kept in a folder"),
    ],
)
def test_a_mistake_is_one_line(capsys: Captured, option: str, says: str) -> None:
    assert says in refused(capsys, option)


def test_a_misspelt_key_in_the_file(recipe: Path, capsys: Captured) -> None:
    recipe.write_text(RECIPE.replace("latent_dim", "latentdim"))
    assert "'latentdim' is not accepted" in refused(capsys)
    recipe.write_text(RECIPE.replace("trainer:", "trianer:"))
    assert "trianer" in refused(capsys)
    recipe.write_text("model: [")
    assert "small.yaml is not YAML" in refused(capsys)
    Path("more.yaml").write_bytes(b"\xff")
    recipe.write_text(RECIPE)
    assert "more.yaml is not YAML" in refused(capsys, "--config=more.yaml")


def test_callbacks_are_cleared_and_appended() -> None:
    Path("ema.yaml").write_text("trainer: {callbacks: [{class_path: EMA}]}")
    averaged = checkpoint(fit("-c", "ema.yaml"))["callbacks"]
    assert any("EMA" in name for name in averaged)
    cleared = checkpoint(fit("-c", "ema.yaml", "--trainer.callbacks=null"))["callbacks"]
    assert not any("EMA" in name for name in cleared)
    appended = checkpoint(fit("-c", "ema.yaml", "--trainer.callbacks+=LearningRateMonitor"))["callbacks"]
    assert any("EMA" in name for name in appended)


def test_no_arguments_at_all(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["fit"])
    assert "required" in capsys.readouterr().err


# ---- recipes and publishing


def test_from_a_checkpoint_to_an_entry(capsys: Captured) -> None:
    # as the run's own Publish would make it: that keeps how long it took, and its film, in the checkpoint
    said = ['.evaluation={"num_particles": 1, "num_odd": 6}', '.card={"limits": "Too small."}', ".dtype=float16"]
    callback = ["+=Publish", ".name=digits/small", *said]
    (path,) = (fit(*(f"--trainer.callbacks{given}" for given in callback)) / "checkpoints").glob("*.ckpt")
    publish = ["publish", "--ckpt_path", str(path), "--name", "digits/own", "--to", "entry", "--device", "cpu"]
    main([*publish, "--num_particles", "2"])
    entry = Path("entry")
    files = {"config.yaml", "metrics.json", "README.md", "model.safetensors", "samples.png", "learning.png"}
    assert {file.name for file in entry.iterdir()} == files
    assert genzoo.load(entry).sample(2).shape == (2, 1, 8, 8)
    published = json.loads((entry / "metrics.json").read_text("utf-8"))
    training = published["training"]
    assert training["steps"] > 0 and training["seed"] == 0 and training["seconds"] > 0
    assert training["recipe"] == "digits/small" and training["film"] == [0, training["steps"]]
    assert published["evaluation"]["num_particles"] == 2 and published["evaluation"]["num_odd"] == 6
    assert "Too small." in (entry / "README.md").read_text("utf-8")
    assert "stored as float16" in (entry / "README.md").read_text("utf-8")
    with pytest.raises(SystemExit):
        main([*publish, "--metrics", "again.json"])
    assert "--metrics has no effect with --ckpt_path" in capsys.readouterr().err
    main(["evaluate", "entry", "--device", "cpu", "--out", "again.json"])
    again = json.loads(Path("again.json").read_text("utf-8"))
    nll = [next(f["value"] for f in m["figures"] if f["name"] == "nll") for m in (published, again)]
    assert nll[0] == nll[1]  # measured on the weights as they are stored
    main([*publish, "--num_particles", "2", "--no-evaluate"])  # at once, and measured later, to the same figures
    unmeasured = json.loads((entry / "metrics.json").read_text("utf-8"))
    assert unmeasured == published | {"figures": []}
    assert "None were measured." in (entry / "README.md").read_text("utf-8")
    capsys.readouterr()
    main(["evaluate", "entry", "--device", "cpu", "--write"])
    later = json.loads((entry / "metrics.json").read_text("utf-8"))
    timed = [figure for figure in later["figures"] if figure["name"] != "sampling_time"]
    assert timed == [figure for figure in published["figures"] if figure["name"] != "sampling_time"]
    assert later["training"] == training
    with pytest.raises(SystemExit):
        main(["evaluate", str(path), "--device", "cpu", "--write"])
    assert "is a checkpoint: `genzoo publish` it" in capsys.readouterr().err


def test_a_checkpoint_named_after_a_metric_is_published(capsys: Captured) -> None:
    named = ["+=ModelCheckpoint", ".monitor=val/nll", ".filename={epoch}-{val/nll:.2f}"]
    run = fit(*(f"--trainer.callbacks{given}" for given in named))
    (path,) = (run / "checkpoints").glob("*/*.ckpt")  # the slash makes a folder
    publish = ["publish", "--ckpt_path", str(path), "--name", "own", "--to", "entry", "--device=cpu"]
    main([*publish, "--num_particles=1"])
    assert genzoo.load("entry").sample(2).shape == (2, 1, 8, 8)
    Path("config.yaml").write_text("data: {class_path: os.system}")  # of no run, however near
    (run / "config.yaml").unlink()
    with pytest.raises(SystemExit):
        main(publish)
    assert "no config.yaml beside" in capsys.readouterr().err
