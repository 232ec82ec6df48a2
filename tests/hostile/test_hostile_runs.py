"""A run's folder that came from somebody else: publishing its checkpoint runs no code and reaches for nothing."""

import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from changes import HTML, POINTS, at, both, edited, linear, text
from watched import watched

import genzoo
from genzoo.cli import main
from genzoo.zoo import VAE
from genzoo.zoo.hub import Entry

Change = Callable[[Path], Any]
PROTOCOL = {"num_particles": 1, "num_likelihood": 4, "num_samples": 8}
TRAP = "from pathlib import Path\n(Path(__file__).parent / 'pwned').touch()\nclass Trap:\n    pass\n"


class Payload:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch pwned",)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, as `genzoo fit` leaves it; the current folder is another, with a trap in it."""
    torch.manual_seed(0)
    module = VAE((2,), None, latent_dim=2, width=8, depth=1)
    publish = {"name": "points/vae", "to": None, "evaluation": PROTOCOL, "card": None, "recipe": None}
    config = {
        "seed_everything": 0,
        "model": {"class_path": "VAE", "init_args": {"latent_dim": 2, "width": 8, "depth": 1}},
        "data": POINTS,
        "trainer": {"callbacks": [{"class_path": "genzoo.callbacks.Publish", "init_args": publish}]},
    }
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    checkpoint = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "global_step": 7,
        "callbacks": {"Publish": {"seconds": 1.5, "hardware": "1 CPU threads"}},
    }
    torch.save(checkpoint, folder / "checkpoints/last.ckpt")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/trap.py").write_text(TRAP)
    (tmp_path / "work/payload.pkl").write_bytes(b"cpathlib\nPath\n(S'pwned'\ntR.")
    genzoo.publish(module, "points/vae", to=tmp_path / "work/extractor", data=POINTS)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(tmp_path / "work")
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("there is no network here")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    return folder


def config(*path: Any, be: Any) -> Change:
    return lambda run: edited(run / "config.yaml", at(*path, be=be))


def publishes(**options: Any) -> Change:
    """With arguments of the run's `Publish` changed."""

    def change(value: dict[str, Any]) -> None:
        value["trainer"]["callbacks"][0]["init_args"].update(options)

    return lambda run: edited(run / "config.yaml", change)


def asks(**options: Any) -> Change:
    """With the run's `Publish` asking `evaluate` for more."""
    return publishes(evaluation={**PROTOCOL, **options})


def resaved(change: Callable[[Any], Any]) -> Change:
    """With something changed in the checkpoint."""

    def changed(run: Path) -> None:
        file = run / "checkpoints/last.ckpt"
        loaded = torch.load(file, weights_only=True)
        change(loaded)
        torch.save(loaded, file)

    return changed


def checkpoint(*path: Any, be: Any) -> Change:
    return resaved(at(*path, be=be))


def packed(run: Path) -> None:
    """With zeros that compress a thousand times."""
    file = run / "checkpoints/last.ckpt"
    with zipfile.ZipFile(file) as before:
        parts = {part.filename: before.read(part) for part in before.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after:
        for name, part in parts.items():
            after.writestr(name, part if "data/" not in name else bytes(2**20))


def overwritten(run: Path) -> None:
    """As a copy that went wrong leaves it: the list of its parts is zeros, its end is there."""
    file = run / "checkpoints/last.ckpt"
    data = bytearray(file.read_bytes())
    place = data.rindex(b"PK\x01\x02")
    data[place : place + 4] = bytes(4)
    file.write_bytes(data)


def in_a_folder(run: Path) -> None:
    """As a run leaves one whose processes write a file each."""
    (run / "checkpoints/last.ckpt").unlink()
    (run / "checkpoints/last.ckpt").mkdir()
    (run / "checkpoints/last.ckpt/.metadata").write_bytes(b"")


HARMLESS: dict[str, Change] = {
    "nothing": lambda run: None,
    "an extractor elsewhere": asks(extractor="extractor"),
    "an extractor at an address": asks(extractor="http://127.0.0.1:9/x"),
    "weights to unpickle": asks(weights_path="payload.pkl"),
    "a cache of its own": asks(cache_dir="elsewhere"),
    "a device of its own": asks(device="meta"),
    "another place to publish to": publishes(to="elsewhere"),
    "an address to publish to": publishes(to="hf://owner/name"),
    "arguments that there are not": publishes(more="x", _seconds=5),
    "HTML": publishes(card={"description": HTML, "limits": HTML}),
    "no callbacks": config("trainer", "callbacks", be=None),
    "one callback": config("trainer", "callbacks", be={"class_path": "trap.Trap"}),
    "other callbacks": config(
        "trainer", "callbacks", be=[None, 5, "x", {"class_path": "trap.Trap"}, {"init_args": 3}]
    ),
    "no trainer": config("trainer", be=None),
    "a trainer of another kind": config("trainer", be=["os.system"]),
    "a logger of another kind": config("trainer", "logger", be={"class_path": "trap.Trap"}),
    "a model that it is not": config("model", be={"class_path": "trap.Trap"}),
    "an alias": lambda run: (run / "config.yaml").write_text(
        (run / "config.yaml").read_text() + "a: &a [1, 2]\nb: *a\n"
    ),
    "no seed": config("seed_everything", be=False),
}
REFUSED: dict[str, tuple[Change, str]] = {
    "Inception's weights to unpickle": (asks(extractor="inception", weights_path="payload.pkl"), "could not be had"),
    "data that are a program": (config("data", be={"class_path": "os.system"}), "none of the classes"),
    "data that are a trap": (config("data", be={"class_path": "trap.Trap"}), "none of the classes"),
    "data that are none": (config("data", be={"class_path": "BatchPlan", "init_args": {"num_rows": 5}}), "none of"),
    "data that are a list": (config("data", be=["os.system"]), "on record"),
    "data of a billion": (config("data", "init_args", "train_size", be=10**9), "most"),
    "a precision that there is not": (publishes(dtype="int4"), "dtype is"),
    "a card that is a list": (publishes(card=[1]), "card is"),
    "a billion samples": (publishes(num_samples=10**9), "num_samples is"),
    "a seed in words": (publishes(seed="zero"), "seed is"),
    "an evaluation that is a list": (publishes(evaluation=[1]), "evaluation is"),
    "no particles": (asks(num_particles=0), "num_particles is"),
    "particles in words": (asks(num_particles="many"), "num_particles is"),
    "a split that there is not": (asks(split="tset"), "split is"),
    "a seed of another kind": (config("seed_everything", be="x"), "seed is"),
    "a list": (text("config.yaml", "[1]"), "mapping"),
    "nothing": (text("config.yaml", ""), "mapping"),
    "bytes": (text("config.yaml", bytes(range(256))), "damaged"),
    "no YAML": (text("config.yaml", "a: ["), "damaged"),
    "Python": (text("config.yaml", "!!python/object/apply:os.system ['touch pwned']"), "tag"),
    "brackets": (text("config.yaml", "a: " + "[" * 20_000), "nest"),
    "a billion laughs": (
        text("config.yaml", "a0: &a0 [1, 1]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(60))),
        "values",
    ),
    "a checkpoint of a program": (
        checkpoint("hyper_parameters", "_class_path", be="os.system"),
        "none of the classes",
    ),
    "a checkpoint of a trap": (checkpoint("hyper_parameters", "_class_path", be="trap.Trap"), "none of the classes"),
    "a checkpoint of no class": (checkpoint("hyper_parameters", "_class_path", be=5), "none of the classes"),
    "a checkpoint without arguments": (checkpoint("hyper_parameters", be={}), "does not say how"),
    "arguments in a list": (checkpoint("hyper_parameters", be=[1]), "does not say how"),
    "a width of a billion": (checkpoint("hyper_parameters", "width", be=10**9), "most"),
    "a depth of a million": (checkpoint("hyper_parameters", "depth", be=10**6), "more layers"),
    "a width of another model": (checkpoint("hyper_parameters", "width", be=16), "another shape"),
    "weights in a list": (checkpoint("state_dict", be=[1]), "does not say how"),
    "no weights": (checkpoint("state_dict", be={}), "lacks"),
    "weights that are words": (checkpoint("state_dict", be={"x": "y"}), "does not say how"),
    "weights that are NaN": (checkpoint("state_dict", "encoder.inlet.bias", be=torch.full((8,), torch.nan)), "NaN"),
    "weights that are whole": (
        checkpoint("state_dict", "encoder.inlet.bias", be=torch.zeros(8).long()),
        "kind of number",
    ),
    "no step": (resaved(lambda loaded: loaded.pop("global_step")), "global_step"),
    "steps in words": (checkpoint("global_step", be="many"), "steps|str"),
    "a time in words": (
        checkpoint("callbacks", "Publish", be={"seconds": "long", "hardware": "CPU"}),
        "ckpt|seconds",
    ),
    "no time": (checkpoint("callbacks", "Publish", be={}), "seconds"),
    "a time that is a list": (checkpoint("callbacks", "Publish", be=[1]), "ckpt"),
    "hardware with a command": (
        checkpoint("callbacks", "Publish", be={"seconds": 1.5, "hardware": "\x1b[31m"}),
        "hardware",
    ),
    "callbacks in words": (checkpoint("callbacks", be=5), "ckpt"),
    "a checkpoint that runs": (
        lambda run: torch.save({"x": Payload()}, run / "checkpoints/last.ckpt"),
        "does not say",
    ),
    "a checkpoint cut short": (
        lambda run: (run / "checkpoints/last.ckpt").write_bytes((run / "checkpoints/last.ckpt").read_bytes()[:500]),
        "no checkpoint",
    ),
    "no checkpoint": (text("checkpoints/last.ckpt", "hello"), "no checkpoint"),
    "one number for a matrix of them": (
        both(
            checkpoint("hyper_parameters", "decoder", be=linear(2, 2**26)),
            checkpoint("state_dict", "decoder.weight", be=torch.zeros(1).expand(2**26, 2)),
        ),
        "far more than it holds",
    ),
    "a checkpoint that unfolds": (packed, "what it holds is longer than it is"),
    "a checkpoint with a damaged end": (overwritten, "does not say how"),
    "a checkpoint in a folder": (in_a_folder, "consolidate_checkpoint"),
    "fingerprints in words": (checkpoint("data", be={"split_fingerprints": 5}), "split_fingerprints"),
    "arguments of the data in a list": (config("data", "init_args", be=[1]), "no mapping"),
}


def publish(run: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[bool, str]:
    """Whether the checkpoint was published, and what was said."""
    before = sorted((run.parent / "work").rglob("*"))
    with watched([run], [out, run.parent / "cache", run.parent / "temporary"]) as seen:
        try:
            main(
                ["publish", f"--ckpt_path={run}/checkpoints/last.ckpt", "--name=x/y", f"--to={out}/x", "--device=cpu"]
            )
            done = True
        except SystemExit as end:
            assert end.code == 2
            done = False
    said = capsys.readouterr()
    assert seen == [] and "trap" not in sys.modules and not list(run.parent.rglob("pwned"))
    assert [path for path in sorted((run.parent / "work").rglob("*")) if path.name != "__pycache__"] == before
    assert "Traceback" not in said.err and all(c.isprintable() or c == "\n" for c in said.out + said.err)
    assert len([line for line in said.err.splitlines() if "error:" in line]) == (not done)
    return done, said.err


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_not_heeded(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    HARMLESS[name](run)
    (tmp_path / "out").mkdir()
    done, said = publish(run, tmp_path / "out", capsys)
    assert done, said
    entry = Entry("x/y", tmp_path / "out/x")
    assert entry.damage is None and entry.metrics["training"]["steps"] == 7
    assert not re.search(r"<[A-Za-z/!]", (entry.path / "README.md").read_text("utf-8"))
    if "extractor" in name or "weights" in name or "own" in name:
        assert said.count("genzoo: note: not heeded") == 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    change, says = REFUSED[name]
    change(run)
    (tmp_path / "out").mkdir()
    done, said = publish(run, tmp_path / "out", capsys)
    assert not done and re.search(says, said), said
    assert not list((tmp_path / "out").iterdir())


def test_a_run_s_folder_is_no_place_to_publish_to(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit):
        main(["publish", f"--ckpt_path={run}/checkpoints/last.ckpt", "--name=x/y", f"--to={run}", "--device=cpu"])
    assert "is no entry of a zoo, so it is not replaced" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    shutil.rmtree(run)
