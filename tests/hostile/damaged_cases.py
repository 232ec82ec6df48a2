"""Entries whose files are damaged, or not what they seem."""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from changes import (
    ALL,
    FIGURE,
    HTML,
    Case,
    appended,
    config,
    edited,
    first,
    header,
    linked,
    metrics,
    no_file,
    tensors,
    text,
    weights,
)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _yaml()
    yield from _metrics()
    yield from _weights()
    yield from _files()


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
        "dtype": [None, "int4", "complex64", "float32\n", 5],
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
    ones = lambda *sides: torch.ones(sides).bfloat16()  # noqa: E731
    yield Case("weights: whole numbers with scales", tensors(partial(_scaled, scale=ones)), "")
    for name, scale, said in (
        ("scales of another kind", lambda rows, blocks: torch.ones(rows, blocks), "unknown to the model"),
        ("scales of too many rows", lambda rows, blocks: ones(rows + 1, blocks), "unknown to the model"),
        ("scales of too many blocks", lambda rows, blocks: ones(rows, blocks + 1), "unknown to the model"),
        ("a scale for each row", lambda rows, blocks: ones(rows), "unknown to the model"),
        ("one scale", lambda rows, blocks: ones(), "unknown to the model"),
        ("scales that are NaN", lambda *sides: ones(*sides) * torch.nan, "NaN or infinite"),
        ("scales that are infinite", lambda *sides: ones(*sides) * torch.inf, "NaN or infinite"),
    ):
        yield Case(f"weights: {name}", tensors(partial(_scaled, scale=scale)), ALL, said)
    yield Case("weights: one less", tensors(lambda s: s.pop(max(s))), ALL, "lacks")
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


def _scaled(state: dict[str, torch.Tensor], scale: Callable[[int, int], torch.Tensor]) -> None:
    """A state with its first matrix in whole numbers, and what is to be the scales of its rows' blocks."""
    key = min(key for key, value in state.items() if value.dim() > 1)
    state[key] = torch.ones_like(state[key]).to(torch.int8)
    state[f"{key}.scale"] = scale(len(state[key]), -(-state[key][0].numel() // 32))


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


def png(width: int, height: int) -> bytes:
    """The beginning of a picture that would be very large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(bytes(min((1 + 3 * width) * height, 10**6)))
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(pwned) (w) file closefile
showpage
"""
