"""What an entry says is data: hostile ones run no code, reach for nothing, and end in one line, or do no harm."""

import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from asking_cases import cases as asking
from bombs import BOMBS
from changes import ALL, Case, publish_all
from damaged_cases import cases as damaged
from mutants import mutate
from thorough import some
from watched import watched

import genzoo
from genzoo.cli import main
from genzoo.compare import exhibits, questions, samples
from genzoo.zoo import hub
from genzoo.zoo.hub import entries

Captured = pytest.CaptureFixture[str]
CASES = [*asking(), *damaged(), *BOMBS]
LONGEST: list[tuple[float, str]] = []  # attempts, by the seconds of this process that they took
TRAP = "from pathlib import Path\n(Path(__file__).parent / 'pwned').touch()\nclass Trap:\n    pass\n"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of good entries, and beside it what is the reader's: a secret, pictures, a module, a pickle."""
    folder = tmp_path_factory.mktemp("reader")
    publish_all(folder / "zoo")
    (folder / "secret.txt").write_text("mine " * 100)
    work = folder / "work"
    (work / "private").mkdir(parents=True)
    (work / "trap.py").write_text(TRAP)
    (work / "payload.pkl").write_bytes(b"cpathlib\nPath\n(S'pwned'\ntR.")
    for place in (work / "good/digits", folder / "digits"):  # where an address might lead
        shutil.copytree(folder / "zoo/good/digits", place)
    return folder


@pytest.fixture
def reader(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's folder as the current one, with little patience for pictures."""
    monkeypatch.chdir(zoo / "work")
    monkeypatch.syspath_prepend(zoo / "work")
    monkeypatch.setenv("GENZOO_CACHE", str(zoo / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(zoo / "cache"))
    patience: dict[Any, dict[str, int]] = {
        questions: {"SAMPLES": 6, "COMPLETED": 2, "PAIRS": 2, "USUAL": 8, "CLOUD": 32},
        exhibits: {"FRAMES": 4, "STEPS": 3},
        samples: {"CLASSES": 1},
    }
    for module, values in patience.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("there is no network here")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    return zoo


def attempts(entry: Path, out: Path) -> dict[str, Callable[[], Any]]:
    """All that can be done with an entry, by initial."""

    def run(*argv: str) -> Callable[[], None]:
        return lambda: main(list(argv))

    out.mkdir(exist_ok=True)
    return {
        "l": lambda: genzoo.load(entry),
        "s": run("sample", str(entry), "--num_samples=2", f"--out={out / 'x.png'}", "--device=cpu"),
        "e": run("evaluate", str(entry), "--device=cpu", f"--out={out / 'metrics.json'}"),
        "c": run("compare", str(entry), "--device=cpu", f"--out={out / 'page.html'}"),
        "p": run("publish", f"--entry={entry}", "--name=again/x", f"--to={out / 'again'}"),
    }


def outcome(attempt: Callable[[], Any], capsys: Captured) -> tuple[bool, str]:
    """Whether it did what it was to do, and all that it said; a refusal is one line, of characters that are shown."""
    capsys.readouterr()
    start = time.process_time()
    try:
        attempt()
        refusal = None
    except SystemExit as end:
        assert end.code == 2
        refusal = ""
    except (ValueError, OSError) as error:  # of the library, which has no command line to say it
        refusal = str(error)
    said = capsys.readouterr()
    LONGEST.append((round(time.process_time() - start, 2), said.err[-200:]))
    LONGEST.sort(reverse=True)
    del LONGEST[5:]
    shown = said.out + said.err + (refusal or "")
    assert "Traceback" not in shown
    assert all(c.isprintable() or c in "\n" for c in shown), repr(shown)
    if refusal is None:
        assert "error" not in said.err
        return True, shown
    errors = [line for line in said.err.splitlines() if line.startswith("genzoo: error: ")]
    assert len(errors) == (0 if refusal else 1) and "\n" not in refusal
    return False, refusal or errors[0]


def try_all(
    entry: Path, reader: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[bool, str]]:
    """What comes of everything that can be done with an entry; nothing else may come of it."""
    out = reader / "out"
    before = contents(entry), contents(reader / "work")
    with watched([entry], [out, reader / "cache"]) as seen:
        outcomes = {initial: outcome(attempt, capsys) for initial, attempt in attempts(entry, out).items()}
    with watched([zoo := entry.parents[1]], []) as seen_in_list, monkeypatch.context() as patched:
        patched.setattr(entries, "EMBEDDED", zoo)
        listed, shown = outcome(lambda: main(["list"]), capsys)
    assert seen + seen_in_list == []
    assert listed and len(re.findall(r"^ *good/vae +9\.5 *$", shown, re.MULTILINE)) == 1
    damage = hub.Entry("hostile/x", entry).damage
    if damage is not None and (entry / "config.yaml").is_file():
        assert re.search(
            r"not to be used hostile/x .*(damaged|newer|no file|pip install)", " ".join(shown.split())
        ), shown
    assert not list(reader.rglob("pwned")) and "trap" not in sys.modules
    assert before == (contents(entry), contents(reader / "work"))
    check_what_was_made(out)
    shutil.rmtree(out)
    return outcomes


def contents(folder: Path) -> dict[Path, int]:
    """When each file below a folder was last changed."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if path.name != "__pycache__"}


def check_what_was_made(out: Path) -> None:
    """A page and a card that a browser takes for text; an entry that fits; nothing that was the reader's."""
    for path in out.rglob("*"):
        if path.suffix in (".txt", ".md", ".yaml", ".json", ".html", ".safetensors"):
            assert b"mine mine" not in path.read_bytes()
    if (page := out / "page.html").exists():
        assert not re.search(r"<(script>alert|img src=x|a href)", page.read_text("utf-8"))
    if (again := out / "again").exists():
        assert hub.Entry("again/x", again).damage is None
        card = (again / "README.md").read_text("utf-8")
        assert not re.search(r"<[A-Za-z/!?]", card)
        rows = [line for line in card.splitlines() if line.startswith("| ")]
        assert all(len(re.findall(r"(?<!\\)\|", row)) == 7 for row in rows), rows


def put(reader: Path, base: str, change: Callable[[Path], Any]) -> Path:
    """A copy of a good entry, with a change made to it."""
    entry = reader / "zoo" / "hostile" / "x"
    shutil.rmtree(entry, ignore_errors=True)
    shutil.copytree(reader / "zoo" / "good" / base, entry)
    change(entry)
    return entry


def test_the_good_entries_are_good(reader: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else nothing would be shown by refusals."""
    for base in ("vae", "digits", "made", "ddpm", "unet", "gan"):
        outcomes = try_all(put(reader, base, lambda _: None), reader, capsys, monkeypatch)
        assert {initial: done for initial, (done, _) in outcomes.items()} == dict.fromkeys(ALL, True), outcomes


def test_there_are_many() -> None:
    assert len(CASES) >= 150 and len({case.name for case in CASES}) == len(CASES)


def by_hand(case: Case, reader: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = try_all(put(reader, case.base, case.change), reader, capsys, monkeypatch)
    refused = {initial: said for initial, (done, said) in outcomes.items() if not done}
    assert "".join(refused) == case.refused_by, refused
    for said in refused.values():
        assert re.search(case.says, said), said


@pytest.mark.parametrize("case", some(CASES, CASES[::5].__contains__), ids=str)
def test_by_hand(case: Case, reader: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(case, reader, capsys, monkeypatch)


def at_random(seeds: range, reader: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Tries a mutant for each seed; how many were refused by which of the five attempts."""
    refusals: Counter[str] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        base = rng.choice(["vae", "vae", "digits", "made", "ddpm", "unet", "gan"])
        try:
            entry = put(reader, base, lambda entry, rng=rng: mutate(entry, rng))  # type: ignore[misc]
            outcomes = try_all(entry, reader, capsys, monkeypatch)
        except BaseException as error:
            raise AssertionError(f"seed {seed}, {base}: {error}") from error
        refusals["".join(initial for initial, (done, _) in outcomes.items() if not done)] += 1
    return refusals


def test_at_random(reader: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = at_random(range(15), reader, capsys, monkeypatch)
    assert refusals[""] and refusals[ALL]  # some do no harm, and some are refused by all


@pytest.mark.slow
@pytest.mark.parametrize("start", range(40, 2040, 200))
def test_two_thousand_at_random(start: int, reader: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """None takes 5 seconds of the process, or all of them together 300 MiB more than the first of them."""
    at_random(range(10), reader, capsys, monkeypatch)
    LONGEST.clear()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusals = at_random(range(start, start + 200), reader, capsys, monkeypatch)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    with capsys.disabled():
        print(f"\n{start}: refused by {dict(refusals.most_common())}; {grown:.0f} MiB; {LONGEST[0][0]} s at most")
    assert grown < 300 and LONGEST[0][0] < 5, LONGEST


def test_bombs_are_refused_before_they_take_time_or_memory(reader: Path) -> None:
    """In a process of their own: less than 2 seconds of it each, and less than 300 MB for all."""
    folders = []
    for number, case in enumerate(BOMBS):
        put(reader, case.base, case.change).rename(folder := reader / f"bomb-{number}")
        folders.append(str(folder))
    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("set_off.py"), str(reader / "zoo/good/vae"), *folders],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in ended.stderr
    for line, case in zip(ended.stdout.splitlines(), BOMBS, strict=True):
        seconds, megabytes, error = line.split("\t")
        assert error in ("ValueError", "FileNotFoundError") and float(seconds) < 2 and float(megabytes) < 300, case
