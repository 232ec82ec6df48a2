"""One kind of argument for a model: an entry, an address, a checkpoint or a run, wherever a command takes one."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from running import QUIET, VAE_OF_DIGITS, refused

import genzoo
from genzoo.cli import main
from genzoo.zoo import VAE, hub
from genzoo.zoo.hub.checkpoints import checkpoint_of

Captured = pytest.CaptureFixture[str]

PUBLISHED = """\
trainer:
  limit_val_batches: 2
  callbacks:
    - {class_path: EMA, init_args: {decay: 0.9}}
    - {class_path: ModelCheckpoint, init_args: {monitor: val/nll, mode: max, filename: best}}  # the first
    - class_path: Publish
      init_args: {name: digits/small, dtype: float16, evaluation: {num_particles: 2, num_odd: 6, num_samples: 20}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a run with an average and an entry was made."""
    home = tmp_path_factory.mktemp("home")
    (home / "small.yaml").write_text(VAE_OF_DIGITS)
    (home / "published.yaml").write_text(PUBLISHED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        main(["fit", "--config", "small.yaml", "--config", "published.yaml", *QUIET])
    return home


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its run's folder, relative to the current one."""
    monkeypatch.chdir(trained)
    (folder,) = Path("runs/small").iterdir()
    return folder


def test_a_checkpoint_and_its_run_give_what_the_published_entry_does(run: Path, tmp_path: Path) -> None:
    best = run / "checkpoints" / "best.ckpt"
    assert checkpoint_of(run) == best and (run / "checkpoints" / "last.ckpt").exists()
    raw = torch.load(best, weights_only=True)["callbacks"]["EMA"]["raw"]
    models = {name: str(source) for name, source in {"entry": run / "entry", "best": best, "run": run}.items()}
    pictures, figures = {}, {}
    for name, source in models.items():
        cpu = ["--device", "cpu", "--out"]
        main(["sample", source, "--num_samples", "4", *cpu, str(tmp_path / f"{name}.png")])
        main(["evaluate", source, "--only", "likelihood,anomaly", *cpu, str(tmp_path / f"{name}.json")])
        pictures[name] = (tmp_path / f"{name}.png").read_bytes()
        figures[name] = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
    assert pictures["entry"] == pictures["best"] == pictures["run"]
    assert figures["entry"]["figures"] == figures["best"]["figures"] == figures["run"]["figures"]
    assert figures["best"]["evaluation"]["num_particles"] == 2
    # the average, exactly as it was trained: float16 is how it is published, not what it is
    loaded, average = genzoo.load(run).state_dict(), torch.load(best, weights_only=True)["state_dict"]
    assert all(torch.equal(loaded[name], average[name]) for name in average)
    assert not all(torch.equal(loaded[name], raw[name]) for name in raw)
    assert any(not torch.equal(value, value.half().float()) for value in loaded.values() if value.is_floating_point())


def test_a_checkpoint_has_no_card_and_that_is_said(run: Path, capsys: Captured) -> None:
    for named in (run, run / "checkpoints" / "last.ckpt"):
        assert f"{named} is a checkpoint, or a run with some, which has no card" in refused(
            ["show", str(named)], capsys
        )


def test_a_model_to_begin_with_may_lie_anywhere(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where YAML would read something into its name."""
    begin = tmp_path / "from: a, 'b' [ü]"
    shutil.copytree(run / "entry", begin)
    monkeypatch.chdir(tmp_path)
    data = ["--data=DigitsDataModule", "--data.limit=64", "--trainer.max_steps=1", "--trainer.accelerator=cpu"]
    main(["fit", "--from", begin.name, *data, *QUIET])
    (config,) = (path for path in Path("runs").rglob("config.yaml") if path.parent.name != "entry")
    callbacks = yaml.safe_load(config.read_text("utf-8"))["trainer"]["callbacks"]
    assert [c["init_args"]["source"] for c in callbacks if c["class_path"].endswith("StartFrom")] == [begin.name]


def test_checkpoints_stand_beside_entries_on_a_page(run: Path, tmp_path: Path) -> None:
    models = [str(run / "entry"), str(run / "checkpoints" / "last.ckpt")]
    main(["compare", *models, "--out", str(tmp_path / "page.html"), "--device", "cpu"])
    page = (tmp_path / "page.html").read_text("utf-8")
    assert all(
        f"<strong>{model.removeprefix('runs/')}</strong>" in page for model in models
    )  # told apart by where they lie
    assert page.count("<strong>real</strong>") == 1  # one task


def test_a_run_is_published_as_its_own_publish_would(run: Path, tmp_path: Path, capsys: Captured) -> None:
    for how in ([str(run)], ["--ckpt_path", str(run / "checkpoints" / "best.ckpt")]):
        main(["publish", *how, "--name", "digits/small", "--to", str(tmp_path / "entry"), "--device", "cpu"])
        again, own = (hub.Entry("digits/small", folder) for folder in (tmp_path / "entry", run / "entry"))
        assert again.config == own.config
    main(["publish", str(run / "entry"), "--name", "mine/small", "--to", str(tmp_path / "copy")])
    assert hub.Entry("mine/small", tmp_path / "copy").metrics == own.metrics
    capsys.readouterr()
    assert "one of the two" in refused(["publish", str(run), "--entry", "digits/vae", "--name", "x/y"], capsys)
    assert "--dtype has no effect" in refused(["publish", "digits/vae", "--name", "x/y", "--dtype=float16"], capsys)


def test_a_run_that_was_moved_keeps_its_best_and_one_without_has_its_last(run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    assert checkpoint_of(moved) == moved / "checkpoints" / "best.ckpt"
    (moved / "checkpoints" / "best.ckpt").unlink()
    assert checkpoint_of(moved) == moved / "checkpoints" / "last.ckpt"
    (moved / "checkpoints" / "last.ckpt").unlink()
    assert checkpoint_of(moved) is None


def test_which_checkpoint_of_a_run_it_is_is_said(run: Path, tmp_path: Path, capsys: Captured) -> None:
    main(["sample", str(run), "--num_samples", "1", "--device", "cpu", "--out", str(tmp_path / "a.png")])
    assert capsys.readouterr().err == f"genzoo: note: of {run} it is checkpoints/best.ckpt\n"


def test_a_folder_of_runs_is_answered_with_the_newest_of_them(run: Path, tmp_path: Path, capsys: Captured) -> None:
    for stamp, written in {"2026-01-31_12-00-00": 2e9, "2026-01-31_09-00-00": 1e9}.items():
        kept = tmp_path / "runs" / "digits" / "vae" / stamp / "checkpoints"
        kept.mkdir(parents=True)
        shutil.copy(run / "checkpoints" / "last.ckpt", kept)
        os.utime(kept, (written, written))
    (tmp_path / "runs/digits/vae/2026-02-01_10-00-00/checkpoints").mkdir(parents=True)  # which had no time to write
    newest = tmp_path / "runs/digits/vae/2026-01-31_12-00-00"
    for above in (newest.parent, newest.parents[1], newest.parents[2]):
        assert f"; the newest run in it is {newest}" in refused(["sample", str(above)], capsys)
    for folder in (newest, newest.parent):  # where a checkpoint's file is wanted
        said = refused(["validate", "--config", "small.yaml", "--ckpt_path", str(folder)], capsys)
        assert f"is a folder; give a file of a run's, of those in {newest}/checkpoints" in said
    (tmp_path / "runs" / "digits" / "vae").rename(tmp_path / "elsewhere")
    assert "the newest run" not in refused(["sample", str(tmp_path / "runs")], capsys)


@pytest.mark.parametrize("command", ["sample", "evaluate", "compare", "publish --name a/b"])
def test_what_is_no_model_is_one_line_that_says_what_was_looked_for(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Path("notes.txt").write_text("of no model")
    for named in ("no/such", "digits/vea", "./photos", "./notes.txt"):
        said = refused([*command.split(), named], capsys)
        assert len(said) < 300
        if named == "./photos":
            assert "no entry of a zoo, which must hold config.yaml and model.safetensors, and no run's folder" in said
        elif named == "./notes.txt":
            assert "notes.txt is no checkpoint, or one that was cut short" in said
        else:
            assert f"{named!r} is neither an entry of the zoo nor a folder (of an entry, or of a run)" in said
            assert "nor a checkpoint's file, nor an address" in said
            assert ("did you mean digits/vae" in said) == (named == "digits/vea")


def test_a_checkpoint_of_a_bare_trainer_is_a_model_too(tmp_path: Path) -> None:
    from lightning.pytorch import Trainer

    from genzoo.datamodules import DigitsDataModule

    torch.manual_seed(0)
    module = VAE((1, 8, 8), 17, latent_dim=2, network="mlp", width=8, depth=1)
    trainer = Trainer(max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path, limit_val_batches=0)
    trainer.fit(module, DigitsDataModule(limit=128))
    (path,) = (tmp_path / "checkpoints").glob("*.ckpt")
    x = torch.zeros(1, 1, 8, 8)
    assert torch.equal(genzoo.load(tmp_path).anomaly_score(x), module.eval().anomaly_score(x))
    assert hub.find(path).config["name"] == path.stem and hub.find(path).metrics == {"evaluation": {}}


@pytest.mark.parametrize(
    "callbacks",
    [None, [1], {"a": 3}, {"a": {"monitor": "x", "best_model_path": 5}}, {"a": {"monitor": 1, "dirpath": [2]}}],
)
def test_whatever_a_run_s_last_checkpoint_says_of_the_best_it_is_within_the_run(
    callbacks: object, run: Path, tmp_path: Path
) -> None:
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    (tmp_path / "checkpoints").mkdir()
    torch.save({**last, "callbacks": callbacks}, tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint_of(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"
    assert isinstance(genzoo.load(tmp_path), VAE)


def test_a_checkpoint_outside_the_run_is_none_of_its_own(run: Path, tmp_path: Path) -> None:
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    elsewhere = {"monitor": "val/nll", "best_model_path": str((run / "checkpoints" / "best.ckpt").absolute())}
    (tmp_path / "checkpoints").mkdir()
    torch.save({**last, "callbacks": {"a": elsewhere}}, tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint_of(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"
