"""Entries at random: good ones of which a few values, bytes or files are changed into what nobody expects."""

import copy
import json
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from changes import edited, weights

import genzoo.datamodules
from genzoo.zoo.hub.building import exported, model_classes

DOWNLOADS = ("MNIST", "CIFAR", "FSDD")
CLASSES = sorted(model_classes()) + sorted(
    path for path in exported(genzoo.datamodules) if not any(name in path for name in DOWNLOADS)
)
TEXTS = [
    "",
    "x",
    "None",
    "\x1b[31mred",
    "<script>alert(1)</script>",
    "../../secret.txt",
    "/etc/passwd",
    "payload.pkl",
    "good/digits",
    "http://user:secret@127.0.0.1:9/x",
    "hf://owner/name",
    "file:///etc/passwd",
    "os.system",
    "trap.Trap",
    "!!python/name:os.system",
    "{{ 7 * 7 }}",
    "%s%n%d",
    "a" * 10_000,
    "\u202e",
    "\ud800",
    "inception",
    "faint",
    "9" * 400,
]
NUMBERS = [0, -1, 1, 2, 3, 7, 1.5, -0.0, 1e-300, 1e300, 4096, 10**6, 10**9, 2**31, 2**63, 10**30, math.nan, math.inf]
PARTS: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    [None],
    [[[[]]]],
    {"class_path": "trap.Trap"},
    {"class_path": "os.system", "init_args": {"command": "touch pwned"}},
    {"class_path": "genzoo.zoo.Gaussian", "init_args": {"scale": 0.1}},
    {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 4}},
    {"init_args": {}},
]


def mutate(entry: Path, rng: random.Random) -> None:
    """One to three changes."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        (way,) = rng.choices(list(WAYS), list(WAYS.values()))
        way(entry, rng)


def a_value(rng: random.Random) -> Any:
    """Anything."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(TEXTS)
    if kind < 0.7:
        return rng.choice(NUMBERS)
    if kind < 0.8:
        return {"class_path": rng.choice(CLASSES), "init_args": rng.choice([{}, {"width": 8}, [1], None])}
    return copy.deepcopy(rng.choice(PARTS))


def in_a_tree(tree: Any, rng: random.Random) -> None:
    """Changes one value of a mapping or list, somewhere below."""
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        break
    way = rng.random()
    if way < 0.55:
        node[key] = a_value(rng)
    elif way < 0.65:
        del node[key]
    elif way < 0.75 and isinstance(node, dict):
        node[_misspelt(key, rng)] = node.pop(key)
    elif way < 0.85 and isinstance(node, dict):
        node[rng.choice(["more", "class_path", "init_args", "weights_path", "root", "path", "self"])] = a_value(rng)
    elif way < 0.92:
        node[key] = [node[key]]
    else:
        node[key] = {"class_path": rng.choice(CLASSES), "init_args": node[key]}


def _misspelt(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word))
    return rng.choice([word[:place] + word[place + 1 :], word[:place] + "z" + word[place:], word.upper(), word + " "])


def in_config(entry: Path, rng: random.Random) -> None:
    """A value of config.yaml."""
    _in_file(entry / "config.yaml", rng)


def in_metrics(entry: Path, rng: random.Random) -> None:
    """A value of metrics.json."""
    _in_file(entry / "metrics.json", rng)


def _in_file(file: Path, rng: random.Random) -> None:
    try:
        edited(file, lambda tree: in_a_tree(tree, rng))
    except (ValueError, TypeError, KeyError, yaml.YAMLError, OSError):  # a change before has left nothing to change
        in_bytes(file, rng)


def in_bytes(file: Path, rng: random.Random) -> None:
    """A few bytes of a file: other ones, more of them, or fewer."""
    if not file.is_file():  # by an earlier change
        return
    data = bytearray(file.read_bytes() or b"\0")
    for _ in range(rng.choice([1, 3, 30])):
        place = rng.randrange(len(data))
        way = rng.random()
        if way < 0.5:
            data[place] = rng.choice([0, 9, 10, 32, 34, 42, 45, 58, 91, 93, 123, 125, 128, 255, rng.randrange(256)])
        elif way < 0.75:
            data[place:place] = rng.choice(
                [b"[" * 50, b"{a: ", b"&a *a ", b"\n", b"!!set ", b"- ", b"\xff\xfe", b'"']
            )
        elif len(data) > 20:
            del data[place : place + rng.choice([1, 5, 200])]
            data = data or bytearray(b"\0")
    file.write_bytes(bytes(data))


def in_config_bytes(entry: Path, rng: random.Random) -> None:
    """Bytes of config.yaml."""
    in_bytes(entry / "config.yaml", rng)


def in_metrics_bytes(entry: Path, rng: random.Random) -> None:
    """Bytes of metrics.json."""
    in_bytes(entry / "metrics.json", rng)


def in_weights(entry: Path, rng: random.Random) -> None:
    """Bytes of the weights, for which config.yaml vouches, or not."""
    in_bytes(entry / "model.safetensors", rng)
    if rng.random() < 0.8:
        vouch(entry)


def in_header(entry: Path, rng: random.Random) -> None:
    """A value of the weights' header."""
    try:
        whole = (entry / "model.safetensors").read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        header = json.loads(whole[8 : 8 + length])
        in_a_tree(header, rng)
        head = json.dumps(header).encode()
    except (ValueError, struct.error, OSError, AttributeError, TypeError):  # there is none left, by an earlier change
        return
    (entry / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + whole[8 + length :])
    vouch(entry)


def vouch(entry: Path) -> None:
    """Lets config.yaml state the hash of the weights as they are, where it still can."""
    try:
        weights((entry / "model.safetensors").read_bytes(), entry)
    except (ValueError, TypeError, KeyError, OSError, yaml.YAMLError):
        return


def in_files(entry: Path, rng: random.Random) -> None:
    """A file that is not there, or is no file."""
    name = rng.choice(
        ["metrics.json", "learning.png", "samples.png", "README.md", "config.yaml", "model.safetensors"]
    )
    file = entry / name
    if file.is_file() or file.is_symlink():
        file.unlink()
    if file.exists():
        return
    way = rng.choice(["gone", "folder", "link", "text"])
    if way == "folder":
        file.mkdir()
    elif way == "link":
        file.symlink_to(entry.parents[2] / "secret.txt")
    elif way == "text":
        file.write_text(rng.choice(TEXTS).encode("utf-8", "replace").decode())


#: each with its share
WAYS: dict[Callable[[Path, random.Random], None], float] = {
    in_config: 8,
    in_metrics: 5,
    in_config_bytes: 1.5,
    in_metrics_bytes: 1,
    in_weights: 1,
    in_header: 1,
    in_files: 0.5,
}
