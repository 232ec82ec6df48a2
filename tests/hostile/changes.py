"""Entries as nobody should make them: each a change to one that is good, and who refuses it.

A case names the commands that are to refuse it, by the initials of `load`, `sample`, `evaluate`, `compare` and
`publish`; the others have to do their work.
"""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save

import genzoo
from genzoo.zoo import DDPM, GAN, GPT, MADE, VAE, CosineBetas, WaveNet
from genzoo.zoo.hub.film import Film

ALL = "lsecp"
FIGURE = {"name": "nll", "value": 9.5, "unit": "nats", "split": "test", "protocol": "p", "num_examples": 9}
POINTS = {
    "class_path": "genzoo.datamodules.PointsDataModule",
    "init_args": {"train_size": 128, "val_size": 16, "test_size": 64},
}
DIGITS = {"class_path": "genzoo.datamodules.DigitsDataModule", "init_args": {"limit": 64}}
TEXT = {"class_path": "genzoo.datamodules.TextDataModule", "init_args": {"source": "stdlib", "context_length": 6}}
PROTOCOL = {"split": "test", "num_particles": 1, "num_likelihood": 4, "num_samples": 8, "num_odd": 4, "seed": 0}


def publish_all(folder: Path) -> None:
    """Good entries, very small ones, one below each name of `BASES`."""
    torch.manual_seed(0)
    for name, (module, data) in BASES.items():
        metrics: dict[str, Any] = {"figures": [FIGURE], "evaluation": PROTOCOL, "environment": {"genzoo": "0.1.0"}}
        film = None
        if name == "gan":
            filming, film = Film(), folder / "film.png"
            for step in (0, 10):
                filming.take(built := module(), step)
            picture = filming.picture()
            assert picture is not None
            picture.write(film)
            metrics["training"] = {"film": filming.steps, "steps": 10, "seconds": 1.5, "seed": 0, "recipe": "x/gan"}
        made = built if name == "gan" else module()
        genzoo.publish(made, f"good/{name}", to=folder / "good" / name, data=data, metrics=metrics, learning=film)


BASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "vae": (lambda: VAE((2,), None, latent_dim=2, width=8, depth=1), POINTS),
    "digits": (lambda: VAE((1, 8, 8), 17, latent_dim=2, network="mlp", width=8, depth=1), DIGITS),
    "made": (lambda: MADE((2,), None, width=8, depth=1, mixtures=2), POINTS),
    "ddpm": (
        lambda: DDPM((2,), None, width=8, blocks=1, steps=2, prediction="v", schedule=CosineBetas(steps=32)),
        POINTS,
    ),
    "unet": (lambda: DDPM((1, 8, 8), 17, width=4, multipliers=(1,), steps=2), DIGITS),
    "gan": (lambda: GAN((2,), None, latent_dim=2, width=8, depth=1), POINTS),
    "gpt": (lambda: GPT((6,), 4, width=8, depth=1, heads=1, vocabulary=" abc"), TEXT),
    "wavenet": (lambda: WaveNet((1, 50), 256, channels=4, skip_channels=4, dilations=[1, 2]), None),  # type: ignore[dict-item]
}


@dataclass(frozen=True)
class Case:
    """One hostile entry."""

    name: str
    change: Callable[[Path], None]
    refused_by: str = ALL
    says: str = ""  # what each refusal has to say, a regular expression
    base: str = "vae"

    def __str__(self) -> str:
        return self.name


# ---- ways to change an entry


def edited(file: Path, change: Callable[[Any], Any]) -> None:
    """The YAML or JSON file with its value changed: in place, or into what `change` returns."""
    text, is_yaml = file.read_text("utf-8"), file.suffix == ".yaml"
    value = yaml.safe_load(text) if is_yaml else json.loads(text)
    changed = change(value)
    value = value if changed is None else changed
    file.write_text(yaml.safe_dump(value, sort_keys=False) if is_yaml else json.dumps(value), "utf-8")


def at(*path: Any, be: Any) -> Callable[[Any], None]:
    """Sets what stands at a path of keys."""

    def change(value: Any) -> None:
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = be

    return change


def config(*path: Any, be: Any) -> Callable[[Path], None]:
    """A value of config.yaml."""
    return lambda entry: edited(entry / "config.yaml", at(*path, be=be))


def argument(name: str, be: Any) -> Callable[[Path], None]:
    """An argument of the model."""
    return config("model", "init_args", name, be=be)


def metrics(*path: Any, be: Any) -> Callable[[Path], None]:
    """A value of metrics.json."""
    return lambda entry: edited(entry / "metrics.json", at(*path, be=be))


def asks(**evaluation: Any) -> Callable[[Path], None]:
    """What metrics.json asks of `evaluate`, besides what it did."""
    return lambda entry: edited(entry / "metrics.json", lambda m: m["evaluation"].update(evaluation))


def text(file: str, be: str | bytes) -> Callable[[Path], None]:
    """The whole content of a file."""
    return lambda entry: _ignored((entry / file).write_bytes(be if isinstance(be, bytes) else be.encode()))


def appended(file: str, be: str) -> Callable[[Path], None]:
    """Text after the end of a file."""
    return lambda entry: _ignored((entry / file).write_text((entry / file).read_text() + be))


def _ignored(_: Any) -> None:
    return None


def weights(data: bytes, entry: Path) -> None:
    """Other weights, which config.yaml vouches for."""
    (entry / "model.safetensors").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    edited(entry / "config.yaml", at("weights", "sha256", be=digest))


def tensors(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """The weights, with some of their tensors changed."""

    def changed(entry: Path) -> None:
        state = load_file(entry / "model.safetensors")
        change(state)
        weights(save(state), entry)

    return changed


def first(to: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """The weights, with the first of their tensors turned into something else."""
    return tensors(lambda state: state.update({min(state): to(state[min(state)]).contiguous()}))


def header(change: Callable[[dict[str, Any]], Any], data: bytes | None = None) -> Callable[[Path], None]:
    """The weights' file with another header, for the same data or for others."""

    def changed(entry: Path) -> None:
        whole = (entry / "model.safetensors").read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        about = json.loads(whole[8 : 8 + length])
        about = change(about) or about
        head = json.dumps(about).encode()
        weights(struct.pack("<Q", len(head)) + head + (whole[8 + length :] if data is None else data), entry)

    return changed


def sparse(claimed: bool) -> Callable[[Path], None]:
    """A file of 5 GB that takes no room on the disk; its header knows of them, or not."""

    def changed(entry: Path) -> None:
        size = 5 * 10**9
        about = {"weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
        head = json.dumps(about).encode() if claimed else b"{}"
        with (entry / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(head)) + head)
            file.truncate(8 + len(head) + size)

    return changed


def huge_and_consistent(entry: Path) -> None:
    """5 GB of weights, sparse, for a model that has them: only that nobody vouches for their content."""
    edited(entry / "config.yaml", at("model", "init_args", "width", be=250_000_000 // 4))
    sparse(True)(entry)


def linked(name: str, to: str) -> Callable[[Path], None]:
    """A file that is a link: to the secret beside the entries, or elsewhere."""

    def changed(entry: Path) -> None:
        (entry / name).unlink(missing_ok=True)
        (entry / name).symlink_to(to if to.startswith("/") else entry.parents[2] / to)

    return changed


def no_file(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Something that is no file, in the place of one."""

    def changed(entry: Path) -> None:
        (entry / name).unlink(missing_ok=True)
        make(entry / name)

    return changed


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    """One change after the other."""

    def changed(entry: Path) -> None:
        for change in changes:
            change(entry)

    return changed


def linear(a: int, b: int, **more: Any) -> dict[str, Any]:
    """A layer, as a file states it."""
    return {"class_path": "torch.nn.Linear", "init_args": {"in_features": a, "out_features": b, **more}}


def raw(name: str, value: str) -> Callable[[Path], None]:
    """An argument as YAML writes it."""

    def changed(entry: Path) -> None:
        lines = (entry / "config.yaml").read_text().splitlines()
        found = [f"    {name}: {value}" if line.startswith(f"    {name}:") else line for line in lines]
        assert found != lines
        (entry / "config.yaml").write_text("\n".join(found))

    return changed


#: what a browser would make much of
HTML = "<script>alert(1)</script> <img src=x onerror=alert(1)> <!-- --> <a href='x'> | `x` | a < b & c [x](y)"
