"""`precision: auto`: what it comes to on which hardware, where that is stated, and that a run keeps to it."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace
from running import QUIET, VAE_OF_DIGITS, last_run, python

from genzoo import precision, recipes
from genzoo.cli import main
from genzoo.zoo.precision import fast_bfloat16, fastest_precision

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("auto.yaml").write_text(VAE_OF_DIGITS.replace("accelerator: cpu", "accelerator: cpu, precision: auto"))


def here(monkeypatch: pytest.MonkeyPatch, *, fast: bool) -> None:
    """Gives this processor instructions for bfloat16, or takes them away."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)


def fit(capsys: Captured, *options: str) -> tuple[Path, str]:
    """The run's folder, and what was said of its precision."""
    main(["fit", "--config", "auto.yaml", *QUIET, "--trainer.max_epochs=1", *options])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("genzoo: precision")]
    return last_run(Path.cwd()), "".join(said)


def recorded(run: Path) -> str:
    return yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"]


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("avx512", [False, True])
def test_a_processor_that_multiplies_in_bfloat16_trains_in_it(
    amx: bool, avx512: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert fastest_precision("cpu") == ("bf16-mixed" if amx or avx512 else "32-true")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)  # whose kernels use the instructions
    assert fastest_precision("cpu") == "32-true"


@pytest.mark.parametrize("ampere", [False, True])
def test_so_does_a_gpu(ampere: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: ampere or including_emulation
    )
    assert fast_bfloat16(torch.device("cuda", 1)) == ampere and not fast_bfloat16("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for accelerator in ("gpu", "cuda", Namespace(class_path="lightning.pytorch.accelerators.CUDAAccelerator")):
        assert precision.settled(accelerator, None)[0] == ("bf16-mixed" if ampere else "32-true")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for accelerator in ("gpu", "mps", "tpu", "nonsense"):  # the last is for the Trainer to refuse
        assert precision.settled(accelerator, None)[0] == "32-true"


def test_what_has_no_float64_is_not_chosen(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision._AcceleratorConnector, "_choose_auto_accelerator", staticmethod(lambda: "mps"))
    Path("auto.yaml").write_text(VAE_OF_DIGITS.replace("accelerator: cpu", "precision: auto"))
    main(["fit", "--config", "auto.yaml", *QUIET, "--trainer.max_epochs=1"])
    assert "note: on the CPU: likelihoods take float64, which Apple's GPU has not" in capsys.readouterr().err
    assert yaml.safe_load((last_run(Path.cwd()) / "config.yaml").read_text())["trainer"]["accelerator"] == "cpu"


def test_a_config_beside_a_checkpoint_that_is_of_something_else_says_nothing(tmp_path: Path) -> None:
    checkpoint = tmp_path / "best.ckpt"
    for text in ("", "[1, 2]", "a: !mine 5", "trainer: [1]", "other: 5"):
        (tmp_path / "config.yaml").write_text(text)
        assert precision.precision_of(checkpoint) is None
    (tmp_path / "config.yaml").write_bytes(bytes(range(256)))
    assert precision.precision_of(checkpoint) is None
    (tmp_path / "config.yaml").write_text("trainer: {precision: bf16-mixed}")
    deep = tmp_path / "checkpoints" / "epoch=1-val" / "nll=80.ckpt"  # of a metric with a slash in its name
    assert precision.precision_of(checkpoint) == precision.precision_of(deep) == "bf16-mixed"


@pytest.mark.parametrize(("fast", "comes_to"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_run_says_and_records_what_it_came_to(
    fast: bool, comes_to: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, fast=fast)
    run, said = fit(capsys, "--trainer.callbacks+=Publish", "--trainer.callbacks.name=digits/mine")
    assert said == f"genzoo: precision {comes_to}, the fastest on this cpu; --trainer.precision gives another"
    assert recorded(run) == comes_to
    entry = run / "entry"
    assert json.loads((entry / "metrics.json").read_text())["training"]["precision"] == comes_to
    assert f"- precision: {comes_to}\n" in (entry / "README.md").read_text()
    again, _ = fit(capsys, "--config", str(run / "config.yaml"))  # repeated as it was, on whatever hardware
    assert recorded(again) == comes_to


def test_what_is_given_is_not_discussed(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, fast=True)
    run, said = fit(capsys, "--trainer.precision=64-true")
    assert (recorded(run), said) == ("64-true", "")


def test_a_resumed_run_keeps_its_precision_on_other_hardware(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, fast=False)
    run, _ = fit(capsys)
    checkpoint = run / "checkpoints/last.ckpt"
    resume = (f"--ckpt_path={checkpoint}", "--trainer.max_epochs=2")
    again, said = fit(capsys, *resume)
    assert (recorded(again), said) == ("32-true", "genzoo: precision 32-true, that of the checkpoint's run")
    here(monkeypatch, fast=True)
    again, said = fit(capsys, *resume)
    assert recorded(again) == "32-true"
    assert said == "genzoo: precision 32-true, that of the checkpoint's run; here bf16-mixed is the fastest"
    assert recorded(fit(capsys, *resume, "--trainer.precision=bf16-mixed")[0]) == "bf16-mixed"
    main(["validate", "--config", "auto.yaml", *QUIET, f"--ckpt_path={checkpoint}"])
    assert "genzoo: precision 32-true, that of the checkpoint's run; here" in capsys.readouterr().err
    shutil.move(checkpoint, "alone.ckpt")
    again, said = fit(capsys, "--ckpt_path=alone.ckpt", "--trainer.max_epochs=2")
    assert recorded(again) == "bf16-mixed" and "the fastest on this cpu" in said


def test_a_requeued_job_keeps_it_too(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known as the same command by what was given, not by what that came to on another node."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # which Lightning takes for a session, not for a job of its own
    here(monkeypatch, fast=False)
    fit(capsys)
    here(monkeypatch, fast=True)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again, said = fit(capsys)
    assert yaml.safe_load((again / "config.yaml").read_text())["ckpt_path"].endswith("checkpoints/last.ckpt")
    assert recorded(again) == "32-true" and "here bf16-mixed is the fastest" in said


def test_a_requeued_job_goes_on_from_no_other_whose_number_begins_alike(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    fit(capsys)
    monkeypatch.setenv("SLURM_JOB_ID", "471")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again, _ = fit(capsys)
    assert yaml.safe_load((again / "config.yaml").read_text())["ckpt_path"] is None


def test_recipes_state_no_precision_that_is_slow_somewhere() -> None:
    stated = {yaml.safe_load(recipes.find(name).read_text())["trainer"].get("precision") for name in recipes.names()}
    assert stated == {"auto", None}


@pytest.mark.parametrize(
    "told",
    [
        "",
        "torch.set_float32_matmul_precision('high')",
        "torch.set_float32_matmul_precision('medium')",
        "torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True",
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.cudnn.conv.fp32_precision = 'tf32'",
    ],
)
def test_figures_are_measured_without_tf32_by_whatever_names_it_was_asked_for(told: str) -> None:
    """PyTorch has two sets of names for it, and an error for whoever reads by one what was said by the other."""
    script = f"""
import torch
from genzoo.zoo.precision import without_tf32

def state():
    try:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    except RuntimeError:
        of = torch.backends.cuda.matmul, torch.backends.cudnn.conv
        return tuple(place.fp32_precision == "tf32" for place in of)

def named():
    try:
        return torch.get_float32_matmul_precision()  # a Trainer asks when it begins
    except RuntimeError:
        return None

{told}
before, name = state(), named()
with without_tf32():
    assert state() == (False, False), state()
try:
    with without_tf32():
        raise KeyError
except KeyError:
    pass
assert (state(), named()) == (before, name), (state(), before, named(), name)
assert any(before)
"""
    Path("script.py").write_text(script)
    ended = python("script.py", cwd=Path.cwd())
    assert ended.returncode == 0, ended.stderr
