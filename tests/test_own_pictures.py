"""`genzoo fit --config images/<model> --data.root photos`, by a clock that goes on whenever somebody looks at it."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import timer
from PIL import Image
from running import QUIET, last_run, logged, refused
from thorough import some

import genzoo
from genzoo.callbacks import forecast, frechet
from genzoo.cli import main
from genzoo.metrics.closeness import Closeness

MODELS = ["ae", "ddpm", "flow-matching", "gan", "pixelcnn", "vae"]
FEW = "{only: [closeness], num_samples: 10}"
BRIEF = [*QUIET, "--trainer.accelerator=cpu", f"--trainer.callbacks.evaluation={FEW}"]
STEPS = {"ddpm", "flow-matching"}  # whose samplers take some


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with photos: colour pictures in two classes, and what lies about in anybody's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for i in range(60):
        pixels = torch.randint(256, (9, 8, 3), generator=torch.Generator().manual_seed(i), dtype=torch.uint8).numpy()
        path = tmp_path / "photos" / ("cats", "dogs")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (tmp_path / "photos" / "cats" / ".DS_Store").write_bytes(b"litter")
    (tmp_path / "photos" / "notes.txt").write_text("of another kind")
    return tmp_path


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes at every look at the clock; what is drawn meanwhile takes little time."""
    looks = iter(range(10**9))
    for module in (timer, forecast):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(looks))))
    monkeypatch.setattr(genzoo.zoo.Autoencoder, "completion_sweeps", 4)
    few = {"num_samples": 10}
    monkeypatch.setattr(frechet, "Closeness", lambda *data, **options: Closeness(*data, **{**options, **few}))


@pytest.mark.filterwarnings("ignore:.*files are read. Left out.*")
@pytest.mark.parametrize("model", some(MODELS, {"ddpm", "gan"}.__contains__))
def test_two_minutes_for_a_folder(model: str, folder: Path, hasty: None) -> None:
    fit = [
        "fit",
        f"--config=images/{model}",
        "--data.root=photos",
        "--data.limit=16",
        "--trainer.max_time=00:00:02:00",
    ]
    main([*fit, *BRIEF, *(["--model.steps=4"] if model in STEPS else [])])
    run = last_run(folder)
    assert run.parent == folder / "runs" / "images" / model
    config = yaml.safe_load((run / "entry" / "config.yaml").read_text())
    assert config["name"] == f"photos/{model}"
    stated = config["data"]["init_args"]
    assert (stated["size"], stated["channels"], stated["batch_size"], stated["flip"]) == (8, 3, 2, True)
    conditional = model in ("ddpm", "flow-matching", "gan", "pixelcnn")
    assert (genzoo.load(run / "entry").num_classes if conditional else 2) == 2
    pictures = sorted(int(path.stem.partition("-")[2]) for path in run.glob("samples/samples-*.png"))
    steps = checkpoint(run)["global_step"]
    assert 5 < steps < 120 and pictures[0] == 1 and pictures[-1] == steps  # a step looks at the clock several times
    assert len(pictures) >= 5
    rates = [group["lr"] for o in checkpoint(run)["optimizer_states"] for group in o["param_groups"]]
    assert max(rates) < 0.01 * 2e-2  # the schedule is at its end
    trained = json.loads((run / "entry" / "metrics.json").read_text())["training"]
    assert trained["recipe"] == f"images/{model}" and (run / "entry" / "learning.png").is_file()
    assert "frechet" in (run / "entry" / "metrics.json").read_text()


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.filterwarnings("ignore:.*files are read. Left out.*")
def test_its_length_is_one_argument(folder: Path, hasty: None) -> None:
    fit = ["fit", "--config=images/flow-matching", "--data.root=photos/cats", "--data.test_fraction=0.2", *BRIEF]
    fit.append("--model.steps=4")
    main([*fit, "--trainer.max_steps=7"])
    run = last_run(folder)
    assert checkpoint(run)["global_step"] == 7 and logged(run)
    assert genzoo.load(run / "entry").num_classes is None  # there are no classes in it
    main([*fit, "--trainer.max_epochs=2"])
    assert checkpoint(last_run(folder))["global_step"] == 2 * 11  # of 22 pictures in batches of two
    main([*fit, "--trainer.max_time=00:00:01:00"])
    short = last_run(folder)
    assert checkpoint(short)["callbacks"]["Timer"]["time_elapsed"]["train"] >= 60
    begun = checkpoint(short)["global_step"]
    main([*fit, "--trainer.max_time=00:00:02:00", f"--ckpt_path={short}/checkpoints/last.ckpt"])
    assert checkpoint(last_run(folder))["global_step"] > begun
    assert 120 <= checkpoint(last_run(folder))["callbacks"]["Timer"]["time_elapsed"]["train"] < 150


def test_what_the_pictures_came_to_is_the_run_s(
    folder: Path, hasty: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures that come later may be larger: neither the size nor the batch of a run that goes on changes, nor of
    what is measured."""
    fit = ["fit", "--config=images/vae", "--data.root=photos/cats", "--data.test_fraction=0.2", *BRIEF]
    main([*fit, "--data.batch_size=auto", "--trainer.max_steps=2"])
    run = last_run(folder)
    settled = yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]
    known = {name: settled[name] for name in ("size", "channels", "batch_size")}
    assert "auto" not in known.values()
    for number in range(200):
        Image.new("RGB", (48, 48), (number, 0, 255 - number)).save(f"photos/cats/later{number}.png")
    again = ["--data.batch_size=auto", "--trainer.max_steps=3", f"--ckpt_path={run}/checkpoints/last.ckpt"]
    main([*fit, *again])
    longer = last_run(folder)
    now = yaml.safe_load((longer / "config.yaml").read_text())["data"]["init_args"]
    assert longer != run and {name: now[name] for name in known} == known
    main(["evaluate", str(run), "--only", "likelihood", "--num_likelihood", "2", "--device", "cpu"])
    assert "nll" in capsys.readouterr().out


def test_what_cannot_be_is_refused_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "--config=images/vae", *BRIEF, "--trainer.precision=32-true"]
    assert "required: root" in refused(fit, capsys)
    assert "there is no folder" in refused([*fit, "--data.root=nowhere"], capsys)
    said = refused([*fit, "--data.root=photos/dogs", "--data.size=huge"], capsys)
    assert "data.size: expected auto or int, but given huge" in said
    said = refused([*fit, "--data.root=photos/dogs"], capsys)
    assert "distances are measured against at least 6 data, but the test split has 3: give it more" in said
    said = refused([*fit, "--data.root=photos", "--trainer.callbacks.to=photos"], capsys)
    assert "photos exists and is no entry of a zoo" in said
    assert not list(folder.glob("runs/**/*.ckpt"))
