"""What came from elsewhere stands in a message as one plain line, and no password with it."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import genzoo
from genzoo.cli import main
from genzoo.metrics.extractors import FeatureExtractor
from genzoo.zoo import VAE, hub
from genzoo.zoo.hub.wording import blamed_on, masked, one_line, shortened

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://me:{SECRET}@host/x", "https://***@host/x"),
        (f"https://{SECRET}@host:8080/x", "https://***@host:8080/x"),
        (f"ftp://me:p@ss{SECRET}@host", "ftp://***@host"),
        (f"s3://KEY:{SECRET}/+{SECRET}@bucket/x", "s3://***@bucket/x"),
        (f"could not fetch http://:{SECRET}@host (no host)", "could not fetch http://***@host (no host)"),
        (f"a://u:{SECRET}@b and c://u:{SECRET}@d", "a://***@b and c://***@d"),
        (f"https://host/x?token={SECRET}&page=2", "https://host/x?token=***&page=2"),
        (f"https://host/x?page=2&X-Amz-Signature={SECRET}", "https://host/x?page=2&X-Amz-Signature=***"),
        ("hf://owner/name@v1", "hf://owner/name@v1"),
        ("wandb://entity/project/artifact:v0", "wandb://entity/project/artifact:v0"),
        ("http://127.0.0.1:9/x", "http://127.0.0.1:9/x"),
        ("memory://zoo", "memory://zoo"),
        ("write to me@example.org: a/b", "write to me@example.org: a/b"),
    ],
)
def test_passwords_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_line_is_one_line_that_commands_no_terminal() -> None:
    assert one_line("a\n  b\tc\r\nd") == "a b c d"
    assert (
        one_line("\x1b[31mred\x07\x9b\u202e") == "\N{REPLACEMENT CHARACTER}[31mred" + 3 * "\N{REPLACEMENT CHARACTER}"
    )
    assert one_line("1 ≤ σ ✓ ‖x‖ 数") == "1 ≤ σ ✓ ‖x‖ 数"
    assert shortened("x" * 100) == "'" + "x" * 59 + "…" and shortened([1]) == "a list" and shortened(None) == "None"


def test_an_error_that_says_what_is_wrong_stays_and_others_are_blamed() -> None:
    for error in (ValueError("this"), FileNotFoundError("that")):
        with pytest.raises(type(error), match=str(error)), blamed_on("x"):
            raise error
    with (
        pytest.raises(ValueError, match=r"^the entry: ZeroDivisionError: no reason given$") as raised,
        blamed_on("the entry"),
    ):
        raise ZeroDivisionError
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


# ---- wherever an address is given

ADDRESSES = [
    f"http://me:{SECRET}@127.0.0.1:9/x",
    f"https://{SECRET}@127.0.0.1:9/x",
    f"ftp://me:{SECRET}@127.0.0.1:9/x",
    f"sftp://me:{SECRET}@127.0.0.1:9/x",
    f"nonsense://me:{SECRET}@nowhere",
    f"http://127.0.0.1:9/x?token={SECRET}",
    f"hf://me:{SECRET}@owner",
    f"wandb://me:{SECRET}@entity/project",
]
CALLS: dict[str, Callable[[str], Any]] = {
    "load": genzoo.load,
    "resolve": hub.resolve,
    "revision": lambda address: genzoo.load(address, revision="main"),
    "extractor": FeatureExtractor,
    "publish": lambda address: genzoo.publish(VAE((2,), None, latent_dim=1, width=2, depth=0), "x", to=address),
}
COMMANDS: dict[str, list[str]] = {
    "sample": ["sample", "ADDRESS"],
    "evaluate": ["evaluate", "ADDRESS"],
    "compare": ["compare", "ADDRESS", "digits/vae"],
    "republish": ["publish", "--entry", "ADDRESS", "--name", "x"],
    "extractor": ["evaluate", "digits/vae", "--extractor", "ADDRESS", "--num_samples", "2", "--only", "closeness"],
    "to": ["publish", "--entry", "points/gan-collapse", "--name", "x", "--to", "ADDRESS"],
    "fit": ["fit", "--config", "ADDRESS"],
}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("call", CALLS)
def test_no_error_has_the_password(call: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor has its traceback, with all causes; nor what is kept of an entry that cannot be sent."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError)) as raised:
        CALLS[call](address)
    told = traceback.format_exception(raised.value)
    assert not [line for line in told if SECRET in line], told
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


@pytest.mark.parametrize("address", ADDRESSES[::3])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_says_the_password(
    command: str, address: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([address if word == "ADDRESS" else word for word in COMMANDS[command]])
    said = capsys.readouterr()
    assert ended.value.code == 2 and "error:" in said.err
    assert SECRET not in said.out + said.err


def test_where_it_is_published_to_is_said_without_the_password(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in what is printed nor on the card, which everybody reads."""
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path))
    address = f"memory://me:{SECRET}@somewhere"
    with pytest.raises(OSError) as raised:
        genzoo.load(address)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    main(["publish", "--entry", "points/gan-collapse", "--name", "x", "--to", address])
    said = capsys.readouterr()
    assert "published x: memory://***@somewhere" in said.out and SECRET not in said.out + said.err
    files = {path.name: path.read_bytes() for path in hub.resolve(address).iterdir()}
    assert b"memory://***@somewhere" in files["README.md"]
    assert not [name for name, content in files.items() if SECRET.encode() in content]


def test_what_is_published_of_an_extractor_has_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(hub, "load", lambda source: VAE((2,), None, latent_dim=1, width=2, depth=0))
    assert FeatureExtractor(f"https://me:{SECRET}@host/x").name == "https://***@host/x"
