"""The benchmarks' own arithmetic: what a contest's ratio is, how files are kept, what the pages make of them."""

import importlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from genzoo import cli

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.syspath_prepend(ROOT / "docs")


class Clock:
    """Moves only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def worker(self, start: float, *steps: float) -> Callable[[int], None]:
        """Takes `start` seconds to begin, and for each of its steps the next of these; a run is one long round."""
        calls = iter(steps * 100)

        def run(number: int) -> None:
            self.now += start + number * next(calls)

        return run


def test_a_ratio_is_of_steps_alone_in_the_same_round() -> None:
    contest = importlib.import_module("benchmarks.contest")
    clock = Clock()
    # one run to warm up, then a short and a long one in each of five rounds: a step takes 1 s, theirs 1 to 5 s
    ours = clock.worker(100, 1.0)
    theirs = clock.worker(30, 1, 2, 2, 1, 1, 4, 4, 5, 5, 3, 3)
    held = contest.Contest("g", "work", "step", ours, [contest.Rival("they", theirs, 3.5)], (2, 7))
    (result,) = contest.hold(held, 5, clock)
    assert result.ours_ms == pytest.approx(1000)
    assert (result.theirs_ms, result.ratio) == (pytest.approx(3000), pytest.approx(3))
    assert (result.low, result.high) == (pytest.approx(2), pytest.approx(4))  # of 1, 2, 3, 4, 5
    assert result.verdict == "MISSED"
    assert result.rounds == 5


def test_a_result_says_in_which_precision_ours_was() -> None:
    contest, results = (importlib.import_module(f"benchmarks.{name}") for name in ("contest", "results"))
    for given, said in (("", results.precision()), ("64-true", "64-true")):
        clock = Clock()
        rivals = [
            contest.Rival("they", clock.worker(0, 2.0)),
            contest.Rival("others", print, missing="pip install them"),
        ]
        held = contest.Contest("g", "work", "step", clock.worker(0, 1.0), rivals, (0, 1), given)
        assert [result.precision for result in contest.hold(held, 1, clock)] == [said, said]


def test_half_a_contest_still_has_a_step() -> None:
    contest = importlib.import_module("benchmarks.contest")
    rivals = [contest.Rival("a", print), contest.Rival("b", print, steps=(0, 16))]
    halved = contest.Contest("g", "work", "step", print, rivals, (3, 43)).halved()
    assert halved.steps == (3, 23)
    assert [rival.steps for rival in halved.rivals] == [None, (0, 16)]
    assert contest.half((1, 2)) == (1, 2)


def test_a_short_run_of_nothing_counts_the_start() -> None:
    contest = importlib.import_module("benchmarks.contest")
    clock = Clock()
    rival = contest.Rival("they", clock.worker(8, 0.0), wanted=4.0, steps=(0, 2))
    held = contest.Contest("g", "work", "start", clock.worker(3, 0.0), [rival], (0, 3))
    (result,) = contest.hold(held, 2, clock)
    assert (result.ours_ms, result.theirs_ms, result.ratio) == (1000, 4000, 4)
    assert result.verdict == "met"


def test_who_is_missing_is_said_and_nobody_runs_for_it() -> None:
    contest = importlib.import_module("benchmarks.contest")

    def must_not_run(steps: int) -> None:
        raise AssertionError

    rival = contest.Rival("they", must_not_run, 1.0, missing="pip install them")
    (result,) = contest.hold(contest.Contest("g", "work", "step", must_not_run, [rival], (0, 1)), 3)
    assert result.ratio is result.ours_ms is result.rounds is None
    assert result.verdict == "not installed: pip install them"


def test_a_long_run_that_takes_no_longer_is_refused() -> None:
    contest = importlib.import_module("benchmarks.contest")
    clock = Clock()
    held = contest.Contest(
        "g", "work", "step", clock.worker(5, 0.0), [contest.Rival("they", clock.worker(1, 1))], (1, 2)
    )
    with pytest.raises(ValueError, match="2 steps took no longer than 1"):
        list(contest.hold(held, 1, clock))


def test_cpu_time_leaves_out_what_is_waited_for() -> None:
    contest = importlib.import_module("benchmarks.contest")
    assert contest.seconds(lambda steps: time.sleep(0.2), 1, contest.CLOCKS["cpu"]) < 0.1
    assert contest.seconds(lambda steps: time.sleep(0.2), 1, contest.CLOCKS["wall"]) >= 0.2


def test_clones_are_found_in_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = importlib.import_module("benchmarks.peers")
    monkeypatch.setattr(peers, "_folder", tmp_path)
    assert peers.missing("nanoGPT").startswith("git clone https://github.com/karpathy/nanoGPT ")
    (tmp_path / "nanoGPT").mkdir()
    (tmp_path / "nanoGPT" / "model.py").touch()
    assert not peers.missing("nanoGPT")
    assert peers.missing("no-such-package") == 'pip install "genzoo[bench]"'


def test_rows_are_kept_by_their_key(tmp_path: Path) -> None:
    results = importlib.import_module("benchmarks.results")
    path = tmp_path / "folder" / "machine.csv"
    assert results.read(path) == []
    results.merge(path, [{"a": "x", "b": 1.23456, "c": None}, {"a": "y", "b": 2, "c": 'ü, "z"'}], ["a"])
    results.merge(path, [{"a": "x", "b": 3.0, "d": "new"}, {"a": "z", "b": 4, "d": ""}], ["a"])
    assert results.read(path) == [
        {"a": "x", "b": "3", "c": "", "d": "new"},
        {"a": "y", "b": "2", "c": 'ü, "z"', "d": ""},
        {"a": "z", "b": "4", "c": "", "d": ""},
    ]
    assert [file.name for file in path.parent.iterdir()] == ["machine.csv"]


def test_a_processor_is_called_by_its_family(monkeypatch: pytest.MonkeyPatch) -> None:
    results = importlib.import_module("benchmarks.results")
    flags = "fpu avx2 avx512f amx_bf16 avx512_bf16"
    said = f"model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz\nflags\t\t: {flags}\n"
    monkeypatch.setattr(Path, "read_text", lambda self: said)
    assert results.processor()[0] == "Intel Xeon Platinum 8481C"
    assert results.hardware().endswith("amx_bf16")
    assert results.precision() == "bf16-mixed"
    monkeypatch.setattr(Path, "read_text", lambda self: said.replace("amx_bf16", ""))
    assert results.precision() == "32-true"
    for generation in (25, 26):  # which a virtual machine does not name
        said = f"cpu family\t: {generation}\nmodel name\t: AMD EPYC Processor\nflags\t\t: {flags}\n"
        monkeypatch.setattr(Path, "read_text", lambda self, said=said: said)
        assert results.processor()[0] == f"AMD EPYC of family {generation}"


def test_exponents_are_those_of_the_largest_sizes() -> None:
    growth = importlib.import_module("benchmarks.growth")
    assert growth.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    rows = [
        {"family": "A", "what": what, "size": str(n), "seconds": str(7.0 if n < 4 else n**2.5), "mib": str(3 * n)}
        for what in ("step", "sample")
        for n in (16, 2, 4, 8)
    ]
    fitted = growth.exponents(rows)
    assert {row["exponent_of_time"] for row in fitted} == {"2.5"}
    assert {row["exponent_of_memory"] for row in fitted} == {"1.0"}
    assert [row["size"] for row in fitted] == [row["size"] for row in rows]


def test_a_budget_is_a_run_with_one_validation_at_its_end(tmp_path: Path) -> None:
    quality = importlib.import_module("benchmarks.time_to_quality")
    arguments = quality.command("digits/gan", 70)
    assert arguments[:3] == ["fit", "--config", "digits/gan"]
    given = dict(argument.removeprefix("--trainer.").split("=", 1) for argument in arguments[3:])
    assert given["max_steps"] == given["val_check_interval"] == "70"
    assert "Publish" not in given["callbacks"]
    assert "FrechetDistance" in given["callbacks"]  # which the recipe chooses its checkpoint by
    assert "EMA" in quality.command("digits/vae", 70)[-1]
    assert "FrechetDistance" not in quality.command("digits/vae", 70)[-1]
    assert "FrechetDistance" in quality.command("mnist/flow-matching", 70)[-1]  # whose validation has no likelihood
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/frechet\n9,1.5,\n69,,12.5\n")
    assert quality.figure(tmp_path, "digits/gan") == ("val/frechet", 12.5)
    (tmp_path / "metrics.csv").write_text("step,val/nll,val/loss\n69,80.5,1\n")
    assert quality.figure(tmp_path, "digits/vae") == ("val/nll", 80.5)
    (tmp_path / "metrics.csv").write_text("step,train/loss\n69,1\n")
    with pytest.raises(ValueError, match="digits/vae"):
        quality.figure(tmp_path, "digits/vae")


def test_what_is_in_the_file_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quality = importlib.import_module("benchmarks.time_to_quality")
    asked: list[tuple[str, list[float]]] = []

    def measure(recipe: str, minutes: list[float], root: str):
        asked.append((recipe, minutes))
        yield from ({"recipe": recipe, "minutes": f"{m:g}", "value": m} for m in minutes)

    monkeypatch.setattr(quality, "measure", measure)
    quality.main(["digits/vae", "--minutes", "5", "--results", str(tmp_path)])
    quality.main(["digits/vae", "digits/gan", "--minutes", "15", "5", "0.5", "--results", str(tmp_path)])
    quality.main(["digits/vae", "--minutes", "5", "15", "--results", str(tmp_path)])
    assert asked == [("digits/vae", [5]), ("digits/vae", [0.5, 15]), ("digits/gan", [0.5, 5, 15])]


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The module that draws the pages, with files that hold a little of everything."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    contest, results, growth = (importlib.import_module(f"benchmarks.{n}") for n in ("contest", "results", "growth"))
    from dataclasses import asdict

    stamp = {"hardware": "A chip, 2 threads", "genzoo": "1", "commit": "abc", "torch": "2.9", "date": "2026-01-31"}
    fast = contest.Result("training", "work", "they", "step", 10.0, 25.0, 2.5, 2.25, 2.75, 1.0, 7)
    gone = contest.Result("training", "work", "others", "step", wanted=1.0, note="not installed: pip install them")
    results.merge(tmp_path / "chip.csv", [asdict(r) | stamp for r in (fast, gone)], ("contest", "rival"))
    points = [
        growth.Point("GPT", w, "context", n, 4, n / 1000, 2.0 * n) for n in (64, 128, 256) for w in ("step", "sample")
    ]
    path = tmp_path / "growth" / "chip.csv"
    results.merge(
        path, growth.exponents([{k: str(v) for k, v in (asdict(p) | stamp).items()} for p in points]), growth.KEY
    )
    rows = [
        {
            "recipe": "digits/vae",
            "minutes": m,
            "seconds": 60.0 * m,
            "steps": 1000 * m,
            "figure": "val/nll",
            "value": 90.0 - m,
        }
        | {"command": f"genzoo fit --config digits/vae --trainer.max_steps={1000 * m}"}
        for m in (15, 5)
    ]
    results.merge(tmp_path / "time_to_quality" / "chip.csv", [row | stamp for row in rows], ("recipe", "minutes"))
    return importlib.import_module("measured")


def test_the_page_on_speed_says_what_the_files_say(measured, tmp_path: Path) -> None:
    ((hardware, rows),) = measured.files(results=tmp_path)
    assert hardware == "A chip, 2 threads"
    table = measured.table(rows)
    assert "| work | they | step | 10 | 25 | **2.50** | 2.25 to 2.75 | 1 |" in table
    assert "| work | others | step | not installed: pip install them |" in table
    assert "genzoo at abc, PyTorch 2.9, 2026-01-31." in table
    measured.bars(hardware, rows)
    figure = measured.plt.gcf()
    (axis,) = figure.axes
    (bar,) = axis.patches
    assert bar.get_x() + bar.get_width() == 2.5
    assert axis.get_xscale() == "log"
    measured.plt.close(figure)


def test_what_was_measured_last_comes_first(measured, tmp_path: Path) -> None:
    results = importlib.import_module("benchmarks.results")
    for name, date in (("a", "2026-01-30"), ("b", "2026-02-01")):
        results.merge(tmp_path / f"{name}.csv", [{"hardware": name, "date": date}], ["hardware"])
    assert [hardware for hardware, _ in measured.files(results=tmp_path)] == ["b", "A chip, 2 threads", "a"]


def test_the_page_on_speed_draws_the_curves(measured, tmp_path: Path) -> None:
    ((hardware, rows),) = measured.files("growth", results=tmp_path)
    assert "| GPT | step of 4 | context 256 | 0.256 | 512 | 1.0 | 1.0 |" in measured.exponents(rows)
    measured.curves(hardware, rows)
    figure = measured.plt.gcf()
    drawn = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert drawn == [[0.064, 0.128, 0.256]] * 2
    measured.plt.close(figure)


def test_the_page_on_quality_says_what_the_files_say(measured, tmp_path: Path) -> None:
    ((hardware, rows),) = measured.files("time_to_quality", results=tmp_path)
    said = measured.runs(rows)
    assert "| digits/vae | 5 | `val/nll` | 85 | 5,000 | 300 |" in said
    assert "```bash\ngenzoo fit --config digits/vae --trainer.max_steps=15000\n" in said
    measured.quality(hardware, rows)
    figure = measured.plt.gcf()
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [5, 15]
    assert list(line.get_ydata()) == [85, 75]
    measured.plt.close(figure)
    measured.quality(hardware, rows[:1])
    assert not measured.plt.get_fignums()  # of one budget there is no curve


def test_the_page_on_quality_draws_a_curve_for_each_optimizer(measured, tmp_path: Path) -> None:
    """At what each run took in all."""
    ((hardware, rows),) = measured.files("time_to_quality", results=tmp_path)
    by = [row | {"optimizer": name} for name in ("Muon", "AdamW, 0.002") for row in rows]
    by[0]["seconds"] = "960"  # where fifteen minutes were asked for
    assert "| digits/vae | Muon | 15 | `val/nll` | 75 | 15,000 | 960 |" in measured.runs(by)
    measured.quality(hardware, by)
    (axis,) = measured.plt.gcf().axes
    assert {str(line.get_label()): list(line.get_xdata()) for line in axis.lines} == {
        "Muon": [5, 16],
        "AdamW, 0.002": [5, 15],
    }
    assert [label.get_text() for label in axis.get_xticklabels()] == ["5", "15"]
    measured.plt.close("all")


def test_adamw_takes_muon_s_place_in_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its decay and its averages, and what is in the file already is not run again."""
    optimizers = importlib.import_module("benchmarks.optimizers")
    recipe = "mnist/ddpm"  # which states both
    _, (name, changes) = optimizers.optimizers(recipe, [0.004])
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", recipe, *changes, "--print_config"])
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    said = model["optimizer"]
    assert (name, said["class_path"]) == ("AdamW, 0.004", "torch.optim.AdamW")
    assert {key: said["init_args"][key] for key in ("lr", "weight_decay", "betas")} == {
        "lr": 0.004,
        "weight_decay": 0.01,
        "betas": [0.9, 0.99],
    }
    assert model["lr_scheduler"]["init_args"]["max_lr"] == [0.004, 0.004]
    with pytest.raises(ValueError, match="digits/vae does not train by Muon"):
        list(optimizers.optimizers("digits/vae", [0.004]))
    asked: list[tuple[list[float], int]] = []

    def measure(recipe: str, minutes: list[float], root: str, *changes: str):
        asked.append((minutes, len(changes)))
        yield from ({"minutes": f"{m:g}", "value": m} for m in minutes)

    monkeypatch.setattr(optimizers, "measure", measure)
    for minutes in ("1", "2"):
        optimizers.main([recipe, "--minutes", "1", minutes, "--rates", "0.004", "--results", str(tmp_path)])
    assert asked == [([1], 0), ([1], 2), ([2], 0), ([2], 2)]


def test_a_recipe_that_fails_says_why_and_has_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = importlib.import_module("benchmarks.memory")
    monkeypatch.setattr(memory, "PICTURES", 20)
    with pytest.raises(RuntimeError, match=r"images/pony ended with 2: .*images/pony"):
        memory.peak("images/pony", 8)


def test_growth_is_measured_after_something_was_computed() -> None:
    """A forked process would wait for threads of PyTorch's that only its parent has."""
    growth = importlib.import_module("benchmarks.growth")
    a = torch.ones(512, 512)
    assert float((a @ a).sum()) > 0
    curve = growth.Curve("VAE", "image side", (8,), 2, growth.image, 256)
    points = list(growth.points(curve, quick=True))
    assert [point.what for point in points] == ["step", "sample"]
    assert all(point.seconds > 0 and point.mib > 0 for point in points)
