"""Entries as nobody should make them: each a change to one that is good, and who refuses it.

A case names the commands that are to refuse it, by the initials of `load`, `sample`, `evaluate`, `compare` and
`publish`; the others have to do their work.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
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


def png(width: int, height: int) -> bytes:
    """The beginning of a picture that would be very large."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(bytes(1 + 3 * width) * min(height, 1000))
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(pwned) (w) file closefile
showpage
"""


# ---- the cases


def cases() -> Iterator[Case]:
    """Two hundred and more."""
    yield from _evaluation()
    yield from _data()
    yield from _model()
    yield from _bombs()
    yield from _yaml()
    yield from _metrics()
    yield from _weights()
    yield from _files()


def _evaluation() -> Iterator[Case]:
    heeded_not = {
        "weights_path": "payload.pkl",
        "cache_dir": "elsewhere",
        "device": "meta",
        "only": ["likelihood"],
        "progress": True,
        "module": None,
        "datamodule": {"class_path": "trap.Trap"},
        "__class__": "trap.Trap",
    }
    for name, value in heeded_not.items():
        yield Case(f"evaluation: {name}", asks(**{name: value}), "")
    for extractor in (
        "good/digits",
        "./good/digits",
        "hf://owner/name",
        "http://127.0.0.1:9/x",
        "wandb://a/b/c",
        "file:///etc",
        "memory://zoo",
        "../digits",
        "/etc/passwd",
        "trap.Trap",
        "",
    ):
        yield Case(f"evaluation: extractor {extractor}", asks(extractor=extractor), "")
    yield Case("evaluation: inception's weights", asks(extractor="inception", weights_path="payload.pkl"), "e")
    for name, values in {
        "split": ["tset", 5, ["test"], {"class_path": "trap.Trap"}, "../test"],
        "num_particles": [0, -1, 10**9, "5", 2.5, True, [1]],
        "num_samples": [0, 10**12, "8", 8.0],
        "num_likelihood": [0, -3, {}, "all"],
        "num_odd": [-1, 10**15, "4"],
        "seed": [-1, 2**63, "0", 0.5],
        "odd": ["faint", [1], {"class_path": "trap.Trap"}, [["faint"]], [{"class_path": "trap.Trap"}]],
        "extractor": [5, ["inception"], {"class_path": "trap.Trap"}],
    }.items():
        for value in values:
            change = asks(**{name: value})
            yield Case(
                f"evaluation: {name}={value!r:.30}", change, "ecp", rf"metrics\.json is damaged.*evaluation\.{name}"
            )
    yield Case("evaluation: odd ways that there are not", asks(odd=["os.system"]), "e", "odd is", base="digits")
    for value in ([], "", 5, None, [["seed", 0]]):
        yield Case(f"evaluation: {value!r}", metrics("evaluation", be=value), "ecp", "evaluation is")


def _data() -> Iterator[Case]:
    def block(path: str, /, **arguments: Any) -> Callable[[Path], None]:
        return config("data", be={"class_path": path, "init_args": arguments})

    for path in (
        "os.system",
        "builtins.open",
        "trap.Trap",
        "subprocess.Popen",
        "genzoo.datamodules.BatchPlan",
        "genzoo.datamodules.InMemory",
        "genzoo.datamodules.base.DataModule.prepare_data",
        "genzoo.datamodules.text.download",
        "genzoo.zoo.VAE",
        "torch.nn.Linear",
    ):
        yield Case(f"data: {path}", block(path, num_rows=5), "ec", "none of the classes")
    folder, secret = "genzoo.datamodules.ImageFolderDataModule", "genzoo.datamodules.TextDataModule"
    yield Case("data: a folder of the reader's", block(folder, root="private", size=8), "ec", "root")
    yield Case("data: a file of the reader's", block(secret, path="secret.txt"), "ec", "path is None")
    yield Case("data: files of the reader's", block(secret, path=["/etc/*", "~/.ssh/*"]), "ec", "path is None")
    yield Case(
        "data: sounds of the reader's",
        block("genzoo.datamodules.AudioDataModule", root="private", length=8, sample_rate=8),
        "ec",
        "root",
    )
    points = POINTS["class_path"]
    for arguments in (
        {"train_size": 10**12},
        {"test_size": 10**9},
        {"train_size": -1},
        {"train_size": 128.0},
        {"train_size": "128"},
        {"batch_size": 0},
        {"name": ["ring"]},
        {"name": "circle"},
        {"noise": "much"},
        {"noise": {"class_path": "trap.Trap"}},
        {"seed": "0"},
        {"seed": -1},
        {"colour": "red"},
        {"limit": True},
    ):
        yield Case(f"data: {arguments}", block(str(points), **arguments), "ec")  # type: ignore[arg-type]
    yield Case("data: of another shape", config("data", be=DIGITS), "ec", "shape|plane")
    for value in ("PointsDataModule", 5, [], ["os.system"], True):
        yield Case(f"data: {value!r}", config("data", be=value), ALL, "data is")
    yield Case("data: none", config("data", be=None), "ec", "no `data:`")
    yield Case("data: a misspelt key", config("data", "init_arg", be={}), ALL, "init_arg is unknown")
    yield Case("data: arguments in a list", config("data", "init_args", be=[1]), ALL, "init_args is")
    yield Case("data: no class", config("data", be={"init_args": {}}), ALL, "class_path is missing")


def _model() -> Iterator[Case]:
    for path in (
        "os.system",
        "builtins.eval",
        "builtins.exec",
        "trap.Trap",
        "subprocess.Popen",
        "torch.hub.load",
        "torch.load",
        "torch.nn.modules.module.Module.load_state_dict",
        "genzoo.zoo.hub.publish",
        "genzoo.zoo.latent.vae.math.exp",
        "genzoo.zoo.latent.vae.VAE.__init__",
        "genzoo.fit.run",
        "lightning.pytorch.Trainer",
        "VAE",
    ):
        yield Case(f"model: {path}", config("model", "class_path", be=path), ALL, "none of the classes")
        part = {"class_path": path, "init_args": {"command": "touch pwned"}}
        yield Case(f"model: a part is {path}", argument("likelihood", part), ALL, "none of the classes")
    for value in (
        None,
        5,
        ["os.system"],
        {"class_path": "os.system"},
        "os system",
        "os.system('x')",
        "",
        "\x1b[31mred",
    ):
        yield Case(f"model: class {value!r:.20}", config("model", "class_path", be=value), ALL, "damaged")
    yield Case("model: torch.nn.Linear", config("model", "class_path", be="torch.nn.Linear"), ALL, "part of one")
    for value in (None, 5, "VAE", [], ["VAE"], {}):
        yield Case(f"model: {value!r}", config("model", be=value), ALL, "damaged")
    for value in ([], [1, 2], "x", 7, False):
        yield Case(f"model: arguments {value!r}", config("model", "init_args", be=value), ALL, "init_args is")
    yield Case("model: no arguments", config("model", "init_args", be=None), ALL, "missing a required argument")
    yield Case("model: a misspelt key", config("model", "init_argz", be={}), ALL, "init_argz is unknown")
    for name, values in {
        "shape": [[], [0], [-2], [2.0], "2", [True], [2, 2, 2, 2], [[2]], None, {}],
        "levels": [17.5, True, "17", 1, 0, -3, [17]],
        "latent_dim": [0, -1, 2.0, "2", None, True, [2], {"class_path": "VAE"}],
        "width": [-8, "8", 8.0, [8], False],
        "depth": ["1", -10, 1.0],
        "network": ["lstm", 5, ["mlp"], {}],
        "likelihood": ["Gaussian", "", 0, [], {}, {"scale": 1.0}, False],
        "encoder": ["os.system", {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2}}],
        "beta": ["1", None, [1.0], {}],
        "kl_warmup": [0.5, None, "0"],
        "widht": [8],
        "self": [1],
        "__class__": ["trap.Trap"],
    }.items():
        for value in values:
            yield Case(f"model: {name}={value!r:.30}", argument(name, value), ALL)
    for number in (".nan", ".inf", "-.inf", "1e999"):
        change = appended("config.yaml", f"more: {number}\n") if number == "1e999" else _raw("beta", number)
        yield Case(f"model: beta={number}", change, "" if number == "1e999" else ALL)  # 1e999 is a text to YAML
    for name, part in {
        "a part's misspelt argument": {"class_path": "genzoo.zoo.CosineBetas", "init_args": {"stepz": 8}},
        "a part's misspelt key": {"class_path": "genzoo.zoo.CosineBetas", "init_arg": {"steps": 8}},
        "a part's arguments beside its class": {"class_path": "genzoo.zoo.CosineBetas", "steps": 8},
        "a part of another kind": {"class_path": "genzoo.zoo.Simple"},
        "a part that is a model": {"class_path": "genzoo.zoo.VAE", "init_args": {"shape": [2], "levels": None}},
        "a part that is a mapping": {"steps": 8},
        "a part that is empty": {},
        "a part that is false": False,
        "a part's argument as text": {"class_path": "genzoo.zoo.CosineBetas", "init_args": {"steps": "8"}},
        "a part's argument of no use": {"class_path": "genzoo.zoo.CosineBetas", "init_args": {"steps": 0}},
    }.items():
        yield Case(f"model: {name}", argument("schedule", part), ALL, base="ddpm")
    yield Case("model: a device", argument("encoder", _linear(2, 4, device="cuda")), ALL, "device")
    yield Case(
        "model: lazy layers",
        argument("encoder", {"class_path": "torch.nn.LazyLinear", "init_args": {"out_features": 4}}),
    )
    yield Case("model: trained by a shell", argument("optimizer", {"class_path": "os.system", "init_args": {}}), "")
    yield Case("model: trained by text", argument("optimizer", "os.system('touch pwned')"), "")
    yield Case("model: another shape than it says", config("shape", be=[3]), ALL, r"shape=\[3\].* its model has")
    yield Case("model: other levels than it says", config("levels", be=17), ALL, "levels=17")
    yield Case("model: other parameters than it says", config("weights", "parameters", be=7), ALL, "7 parameters")
    yield Case("model: a vocabulary that is none", argument("vocabulary", "zzz"), ALL, base="gpt")
    yield Case("model: a vocabulary in JSON", argument("vocabulary", '{"model": []}'), ALL, base="gpt")
    yield Case("model: a deep vocabulary", argument("vocabulary", '{"a":' + "[" * 20_000), ALL, base="gpt")


def _linear(a: int, b: int, **more: Any) -> dict[str, Any]:
    return {"class_path": "torch.nn.Linear", "init_args": {"in_features": a, "out_features": b, **more}}


def _raw(name: str, value: str) -> Callable[[Path], None]:
    """An argument as YAML writes it."""

    def changed(entry: Path) -> None:
        lines = (entry / "config.yaml").read_text().splitlines()
        found = [f"    {name}: {value}" if line.startswith(f"    {name}:") else line for line in lines]
        assert found != lines
        (entry / "config.yaml").write_text("\n".join(found))

    return changed


BOMBS = [
    Case("bomb: a width of 4096", argument("width", 4096)),
    Case("bomb: a width of a million", argument("width", 10**6)),
    Case("bomb: a width of a billion", argument("width", 10**9)),
    Case("bomb: a depth of a million", argument("depth", 10**6), says="more layers than there are weights for"),
    Case("bomb: a depth of a billion", argument("depth", 10**9)),
    Case("bomb: a code of a billion", argument("latent_dim", 10**9)),
    Case("bomb: a part of 10¹⁰ weights", argument("encoder", _linear(10**5, 10**5))),
    Case(
        "bomb: a million copies of a part",
        argument(
            "encoder",
            {
                "class_path": "torch.nn.TransformerEncoder",
                "init_args": {
                    "encoder_layer": {
                        "class_path": "torch.nn.TransformerEncoderLayer",
                        "init_args": {"d_model": 2, "nhead": 1},
                    },
                    "num_layers": 10**6,
                },
            },
        ),
    ),
    Case(
        "bomb: a recurrent part",
        argument(
            "encoder",
            {"class_path": "torch.nn.LSTM", "init_args": {"input_size": 2, "hidden_size": 4, "num_layers": 10**6}},
        ),
    ),
    Case("bomb: a large datum", argument("shape", [10**9])),
    Case(
        "bomb: an image of 10¹⁰ pixels",
        both(argument("shape", [1, 10**5, 10**5]), config("shape", be=[1, 10**5, 10**5])),
        base="unet",
    ),
    Case(
        "bomb: an image for the same weights",
        both(argument("shape", [3, 4096, 4096]), config("shape", be=[3, 4096, 4096])),
        base="unet",
    ),
    Case("bomb: many levels", argument("levels", 10**12), base="digits"),
    Case("bomb: levels for a mask", argument("levels", 10**6), base="digits"),
    Case(
        "bomb: a schedule of a billion steps",
        argument("schedule", {"class_path": "genzoo.zoo.CosineBetas", "init_args": {"steps": 10**9}}),
        base="ddpm",
    ),
    Case("bomb: blocks", argument("blocks", 10**9), base="ddpm"),
    Case("bomb: levels of a U-Net", argument("multipliers", [2**20] * 1000), base="unet"),
    Case("bomb: a mask", argument("width", 10**6), base="made"),
    Case("bomb: hidden layers", argument("depth", 2 * 10**6), base="made"),
    Case("bomb: mixtures", argument("mixtures", 2 * 10**6), base="made"),
    Case("bomb: layers of a transformer", argument("depth", 10**6), base="gpt"),
    Case(
        "bomb: a long text for the same weights",
        both(argument("shape", [2**21 + 1]), config("shape", be=[2**21 + 1])),
        base="gpt",
    ),
    Case(
        "bomb: a longer text",
        both(argument("shape", [2**21]), config("shape", be=[2**21]), argument("heads", 1)),
        says="tables|fit",
        base="gpt",
    ),
    Case("bomb: cycles", argument("cycles", 2 * 10**6), base="wavenet"),
    Case(
        "bomb: cycles of many dilations",
        both(argument("dilations", [1] * 5_000), argument("cycles", 2 * 10**6)),
        base="wavenet",
    ),
    Case("bomb: 20,000 brackets", appended("config.yaml", "more: " + "[" * 20_000), says="nest"),
    Case(
        "bomb: 20,000 pairs of brackets",
        appended("config.yaml", "more: " + "[" * 20_000 + "]" * 20_000),
        says="nest",
    ),
    Case("bomb: 20,000 braces", appended("config.yaml", "more: " + "{a: " * 20_000), says="nest"),
    Case(
        "bomb: 2,000 blocks",
        appended("config.yaml", "more:\n" + "".join(" " * i + " a:\n" for i in range(2000))),
        says="nest",
    ),
    Case("bomb: a million values", appended("config.yaml", "more: [" + "0," * 10**6 + "0]\n"), says="values"),
    Case("bomb: a million keys", appended("config.yaml", "".join(f"k{i}: 0\n" for i in range(10**5))), says="values"),
    Case("bomb: 9 MB of YAML", appended("config.yaml", "# " + "x" * 9 * 2**20), says="bytes"),
    Case(
        "bomb: a billion laughs",
        appended(
            "config.yaml",
            "a: &a [1, 1]\n"
            + "".join(f"{y}: &{y} [*{x}, *{x}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)),
        ),
        says="aliases",
    ),
    Case("bomb: a number of 5,000 digits", appended("config.yaml", "more: " + "9" * 5000), says="damaged"),
    Case(
        "bomb: a number of a million hexadecimal digits",
        appended("config.yaml", "more: 0x" + "f" * 10**6),
        says="64 bits",
    ),
    Case("bomb: 20,000 brackets of JSON", text("metrics.json", "[" * 20_000), "ecp", "nested"),
    Case("bomb: 500 brackets of JSON", text("metrics.json", "[" * 500 + "]" * 500), "ecp", "nested"),
    Case("bomb: 2 MB of JSON", text("metrics.json", "[" + "0," * 2**20 + "0]"), "ecp", "bytes"),
    Case("bomb: a number of 5,000 digits of JSON", metrics("figures", 0, "value", be=10**4000), "ecp", "64 bits"),
    Case("bomb: 5 GB of weights that nobody knows of", sparse(False), says="too large|no safetensors"),
    Case("bomb: 5 GB of weights", sparse(True), says="too large"),
    Case(
        "bomb: 5 GB of weights for a small model",
        both(sparse(True), config("weights", "parameters", be=10**10)),
        says="does not fit",
    ),
    Case(
        "bomb: 5 GB of weights for a large model",
        both(huge_and_consistent, config("weights", "parameters", be=10**10)),
        says="width is",
    ),
    Case(
        "bomb: a header of 100 MB",
        lambda entry: weights(struct.pack("<Q", 10**8) + b"{" + b" " * 10**8, entry),
        says="no safetensors|too large",
    ),
    Case(
        "bomb: a deep header",
        lambda entry: weights(struct.pack("<Q", 20_000) + b"[" * 20_000, entry),
        says="no safetensors",
    ),
    Case(
        "bomb: a header of very large tensors",
        header(lambda h: {"x": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}),
        says="no safetensors",
    ),
    Case("bomb: weights without an end", linked("model.safetensors", "/dev/zero"), says="no file|link"),
]


def _bombs() -> Iterator[Case]:
    yield from BOMBS


def _yaml() -> Iterator[Case]:
    for name, content in {
        "nothing": "",
        "a list": "[1, 2]",
        "a text": "genzoo",
        "a number": "5",
        "null": "null",
        "a NUL": "\x00",
        "an open bracket": "a: [",
        "a tab": "a:\n\t- b",
        "two documents": "genzoo: 0.1.0\n---\nname: x",
        "a program": "#!/bin/sh\ntouch pwned",
        "Python": "!!python/object/apply:os.system ['touch pwned']",
        "a Python name": "!!python/name:os.system",
        "a new object": "!!python/object/new:trap.Trap []",
    }.items():
        yield Case(f"yaml: {name}", text("config.yaml", content), ALL, "damaged")
    yield Case("yaml: bytes", text("config.yaml", bytes(range(256))), ALL, "damaged")
    yield Case("yaml: UTF-16", text("config.yaml", "genzoo: 0.1.0".encode("utf-16")), ALL, "damaged")
    for name, lines in {
        "a tag": "more: !!python/tuple [1]",
        "a tag with a command for the terminal": "more: !<tag:%1b[31m> x",
        "a set": "more: !!set {a, b}",
        "binary": "more: !!binary aGk=",
        "a number that is none": "more: !!int ''",
        "a date": "more: 2001-01-01",
        "a date that is none": "more: 2001-99-99",
        "a key that is a list": "more: {[1]: 2}",
        "a key that is a number": "5: 2",
        "a key with a command for the terminal": '"\\e[31m": 2',
        "half a pair": 'more: "\\uD800"',
        "a merge of nothing": "<<: 5",
        "not a number": "more: .nan",
    }.items():
        yield Case(f"yaml: {name}", appended("config.yaml", lines + "\n"), ALL, "damaged")
    yield Case("yaml: more than genzoo writes", appended("config.yaml", "more: [1, 2]\n"), "")
    for version in (1, 0.1, None, [], "", "new", "0.1.0\x1b[31m", "9" * 5000, "0" * 5000):
        yield Case(f"genzoo: {version!r:.20}", config("genzoo", be=version), ALL, "genzoo")
    yield Case("genzoo: a newer one", config("genzoo", be="999.0.0"), ALL, "pip install -U genzoo")
    for name in (None, 5, "", "../x", "/etc", "a b", "a//b", "x\x1b[31m", "<script>", "a\nb", ["x"], "x" * 10 + "/"):
        yield Case(f"name: {name!r:.20}", config("name", be=name), ALL, "name is")
    for key, values in {
        "file": [None, "../secret.txt", "weights.pt", 5],
        "sha256": [None, 5, "", "0" * 63, "G" * 64, ["0" * 64]],
        "dtype": [None, "int8", "complex64", "float32\n", 5],
        "parameters": [None, -1, "12", 1.5, True, 10**30],
    }.items():
        for value in values:
            yield Case(f"weights: {key}={value!r:.20}", config("weights", key, be=value), ALL, "damaged")
    for value in (None, 5, [], "model.safetensors"):
        yield Case(f"weights: {value!r}", config("weights", be=value), ALL, "weights is")
    yield Case("weights: another hash", config("weights", "sha256", be="0" * 64), ALL, "SHA-256")
    for value in (
        [],
        "x",
        {"description": 5},
        {"description": None},
        {"licens": "x"},
        {"description": "\x1b]0;x\x07"},
    ):
        yield Case(f"card: {value!r:.30}", config("card", be=value), ALL, "card")
    yield Case("card: HTML", config("card", be={"description": HTML, "limits": HTML}), "")
    for key, values in {
        "shape": [5, "2", [2.0], [0], [], [[2]]],
        "levels": [17.5, "2", True],
        "num_classes": [0, "x"],
    }.items():
        for value in values:
            yield Case(f"{key}: {value!r}", config(key, be=value), ALL, f"{key}")


HTML = "<script>alert(1)</script> <img src=x onerror=alert(1)> <!-- --> <a href='x'> | `x` | a < b & c [x](y)"


def _metrics() -> Iterator[Case]:
    damaged = r"metrics\.json is damaged"
    for name, content in {
        "nothing": "",
        "a list": "[]",
        "a list of figures": "[1]",
        "null": "null",
        "a text": '"x"',
        "a number": "5",
        "no JSON": "{figures: []}",
        "half": '{"figures": [',
        "a mark of the byte order": "\ufeff{}",
        "NaN": '{"figures": [{"name": "a", "value": NaN, "unit": "b"}]}',
        "infinity": '{"figures": [{"name": "a", "value": -Infinity, "unit": "b"}]}',
        "1e999": '{"figures": [{"name": "a", "value": 1e999, "unit": "b"}]}',
        "half a pair": '{"figures": [{"name": "\\ud800", "value": 1, "unit": "b"}]}',
    }.items():
        yield Case(f"metrics: {name}", text("metrics.json", content), "ecp", damaged)
    yield Case("metrics: bytes", text("metrics.json", bytes(range(256))), "ecp", damaged)
    yield Case("metrics: empty", text("metrics.json", "{}"), "")
    yield Case("metrics: more than genzoo writes", metrics("more", be=[1, {"a": None}]), "")
    for value in (None, {}, "nll", 5, [None], [1], ["nll"], [[]], [{}], [FIGURE] * 2000):
        yield Case(f"figures: {value!r:.20}", metrics("figures", be=value), "ecp", damaged)
    for key, values in {
        "name": [None, 5, [], "n\x1b[31mll", "n\nll", "n\u2028ll", "n\u202ell"],
        "value": [None, "9.5", [9.5], True, {"class_path": "trap.Trap"}],
        "unit": [None, 5, "na\x07ts", "nats\r\n"],
        "protocol": [None, 5, "p\x9b31m"],
        "split": [None, 5, ["test"]],
        "kind": [None, "magic", ["exact"], 5],
        "num_examples": [-1, "9", 9.5, None],
        "standard_error": ["0.5", [0.5], False],
        "floor": ["2", [2], {}],
        "floor_name": [None, 5, "\x1b[2J"],
    }.items():
        for value in values:
            yield Case(f"figure: {key}={value!r:.20}", metrics("figures", 0, key, be=value), "ecp", damaged)
        if key in ("name", "value", "unit"):
            gone = lambda entry, key=key: edited(entry / "metrics.json", lambda m: m["figures"][0].pop(key) and None)  # noqa: E731
            yield Case(f"figure: no {key}", gone, "ecp", f"{key} is missing")
    for key in ("name", "unit", "protocol", "floor_name"):
        yield Case(f"figure: HTML as {key}", metrics("figures", 0, key, be=HTML), "")
    yield Case("figure: a value of 10³⁰⁸", metrics("figures", 0, "value", be=1e308), "")
    for value in (None, [], "long", 5):
        yield Case(f"training: {value!r}", metrics("training", be=value), "ecp", damaged)
    for key, values in {
        "seconds": ["1", -1, 1e300, [1], {}],
        "steps": ["1", -1, 1.5],
        "recipe": [5, "x\x1b[31m"],
        "hardware": [5, ["CPU"], "CPU\nGPU"],
        "film": [None, 5, "abc", ["a"], [1.5], [-1], [[1]], [0] * 2000],
    }.items():
        for value in values:
            yield Case(f"training: {key}={value!r:.20}", metrics("training", be={key: value}), "ecp", damaged)
    for value in (None, [], "x", {"torch": 5}, {"torch": ["x"]}, {"torch": "\x1b[31m"}, {"\x1b[31m": "x"}):
        yield Case(f"environment: {value!r:.20}", metrics("environment", be=value), "ecp", damaged)


def _weights() -> Iterator[Case]:
    for name, to in {
        "NaN": lambda t: torch.full_like(t, torch.nan),
        "one NaN": lambda t: t.flatten().index_fill(0, torch.tensor([0]), torch.nan).view(t.shape),
        "infinite": lambda t: torch.full_like(t, torch.inf),
        "infinite below": lambda t: torch.full_like(t, -torch.inf),
        "too large for the model": lambda t: torch.full_like(t, 1e300, dtype=torch.float64),
    }.items():
        yield Case(f"weights: {name}", first(to), ALL, "NaN or infinite")
    for dtype in ("complex64", "int64", "int32", "int16", "int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2"):
        kind = getattr(torch, dtype)
        yield Case(f"weights: {dtype}", first(lambda t, kind=kind: t.to(kind)), ALL, "another kind of number")
    yield Case(
        "weights: a count in floats",
        tensors(lambda s: s.update(iteration=torch.zeros(()))),
        ALL,
        "kind of number",
        "gan",
    )
    yield Case("weights: float64", first(lambda t: t.double()), "")
    yield Case("weights: one less", tensors(lambda s: s.pop(min(s))), ALL, "lacks")
    yield Case("weights: one more", tensors(lambda s: s.update(x=torch.zeros(3))), ALL, "unknown to the model")
    yield Case(
        "weights: a name with a command", tensors(lambda s: s.update({"\x1b[31m": torch.zeros(3)})), ALL, "unknown"
    )
    yield Case("weights: none", tensors(lambda s: s.clear()), ALL, "lacks")
    yield Case("weights: another shape", first(lambda t: torch.zeros(3, 3, 3)), ALL, "another shape")
    yield Case("weights: a scalar", first(lambda t: torch.zeros(())), ALL, "another shape")
    no = "no safetensors"
    for name, data in {
        "empty": b"",
        "seven bytes": b"1234567",
        "a pickle": b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "a header of no length": struct.pack("<Q", 0),
        "a header beyond the end": struct.pack("<Q", 100) + b"{}",
        "the longest header": struct.pack("<Q", 2**64 - 1) + b"{}",
        "no JSON": struct.pack("<Q", 5) + b"hello",
        "a list": struct.pack("<Q", 4) + b"[{}]",
        "a number": struct.pack("<Q", 1) + b"5",
        "no UTF-8": struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    }.items():
        yield Case(f"weights: {name}", lambda entry, data=data: weights(data, entry), ALL, no)
    one = lambda **about: header(lambda h: {**h, min(h.keys() - {"__metadata__"}): about})  # noqa: E731
    yield Case("weights: a negative shape", one(dtype="F32", shape=[-8], data_offsets=[0, 32]), ALL, no)
    yield Case("weights: offsets that go back", one(dtype="F32", shape=[8], data_offsets=[32, 0]), ALL, no)
    yield Case("weights: tensors that overlap", one(dtype="F32", shape=[8], data_offsets=[4, 36]), ALL, no)
    yield Case("weights: an unknown kind", one(dtype="F7", shape=[8], data_offsets=[0, 32]), ALL, no)
    yield Case("weights: a kind that is a list", one(dtype=["F32"], shape=[8], data_offsets=[0, 32]), ALL, no)
    yield Case("weights: offsets that are missing", one(dtype="F32", shape=[8]), ALL, no)
    yield Case("weights: cut short", lambda e: weights((e / "model.safetensors").read_bytes()[:-1], e), ALL, no)
    yield Case("weights: too long", lambda e: weights((e / "model.safetensors").read_bytes() + b"\0", e), ALL, no)
    yield Case("weights: a checkpoint", lambda e: torch.save({"x": torch.zeros(3)}, e / "model.safetensors"), ALL, no)


def _files() -> Iterator[Case]:
    secret = "secret.txt"
    for name in ("config.yaml", "model.safetensors"):
        yield Case(f"files: {name} is a link", linked(name, secret), ALL, "link out of")
        yield Case(f"files: {name} is missing", lambda e, name=name: (e / name).unlink(), ALL, "no entry of a zoo")
        yield Case(f"files: {name} is a folder", no_file(name, Path.mkdir), ALL, "no file")
        yield Case(f"files: {name} is a pipe", no_file(name, os.mkfifo), ALL, "no file")
        yield Case(f"files: {name} is a link to nothing", linked(name, "/nothing/there"), ALL, "no entry of a zoo")
    yield Case("files: metrics.json is a link", linked("metrics.json", secret), "ecp", "link out of")
    yield Case("files: metrics.json is a pipe", no_file("metrics.json", os.mkfifo), "ecp", "no file")
    yield Case("files: metrics.json is missing", lambda e: (e / "metrics.json").unlink(), "")
    yield Case("files: samples.txt is a link", linked("samples.txt", secret), "p", "link out of")
    yield Case("files: samples.png is a link", linked("samples.png", secret), "p", "link out of")
    yield Case("files: samples.wav is a pipe", no_file("samples.wav", os.mkfifo), "p", "no file")
    yield Case("files: samples.sh", text("samples.sh", "touch pwned"), "")
    yield Case("files: README.md is a link", linked("README.md", secret), "")
    yield Case("files: a program beside", text("setup.py", "import trap"), "")
    yield Case("files: a module beside", text("torch.py", "import trap"), "")
    yield Case("files: learning.png is a link", linked("learning.png", secret), "cp", "link out of", "gan")
    yield Case("files: learning.png is a pipe", no_file("learning.png", os.mkfifo), "cp", "no file", "gan")
    yield Case("files: learning.png is a text", text("learning.png", "x"), "c", "learning", "gan")
    yield Case("files: learning.png is a program", text("learning.png", EPS), "c", "learning", "gan")
    yield Case("files: learning.png is cut short", text("learning.png", png(64, 64)[:60]), "c", base="gan")
    yield Case("files: learning.png is huge", text("learning.png", png(60_000, 60_000)), "c", "pixels", "gan")
    yield Case("files: learning.png is wide", text("learning.png", png(2**31 - 1, 1)), "c", base="gan")
    yield Case(
        "files: learning.png of other moments", metrics("training", "film", be=list(range(999))), "", base="gan"
    )
