"""A model's networks as files that run without genzoo: ONNX, and PyTorch's own exported programs."""

import io
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from genzoo.zoo.files import at_home
from genzoo.zoo.interface import HasParts
from genzoo.zoo.parts import Part

TOLERANCE = 1e-4  # of what the file says beside what the model says: of the size, and at least of 1
SUFFIXES = (".onnx", ".pt2")


def export(model: Any, to: str | Path, part: str | None = None) -> list[Path]:
    """Writes the parts of a model, each verified before it is put in its place.

    Args:
        model: on the CPU, in float32 and in evaluation mode.
        to: a file, `name.onnx` or `name.pt2` (of `torch.export`). Of a model with several parts each has a file of
            its own, `name-decoder.onnx`.
        part: the only one to write, to that very file; None: all of them.

    Returns:
        The files; in ONNX of more than 1.5 GB also those with the weights. `facts_of` is in an ONNX file's
            `metadata_props`, and in a program's extra files.

    Raises:
        ValueError: for another suffix, a part that there is not, or a model of which nothing can be exported; or if a
            file does not say what the model says, which is then not put in its place.
        ModuleNotFoundError: if what ONNX takes is not installed.
    """
    if not isinstance(model, HasParts):
        raise ValueError(f"export: of a {type(model).__name__} nothing can be exported.")
    to, known = at_home(to), model.parts()
    if to.suffix not in SUFFIXES:
        raise ValueError(f"export: {to} must end in {' or '.join(SUFFIXES)}, which says what kind of file to write.")
    if part is not None and part not in known:
        raise ValueError(f"export: a {type(model).__name__} has no {part!r}; it has {', '.join(known)}.")
    chosen = known if part is None else {part: known[part]}
    written = []
    for name, one in chosen.items():
        path = to if len(chosen) == 1 else to.with_stem(f"{to.stem}-{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder, torch.no_grad():
            (_write_onnx if to.suffix == ".onnx" else _write_program)(one, Path(folder) / path.name)
            # the weights of a large network lie beside it, under a name that it states
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
                os.replace(file, path.with_name(file.name))
                written.append(path.with_name(file.name))
    return written


def _write_onnx(part: Part, path: Path) -> None:
    for package in ("onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"export: ONNX takes {package}: pip install 'genzoo[onnx]'.")
    import onnxruntime

    with _quiet():
        program = torch.onnx.export(
            part,
            part.example(2),
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=_any_batch(part),
            dynamo=True,
        )
    assert program is not None
    program.model.metadata_props.update(facts_of(part))
    program.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    verify(part, lambda *x: session.run(None, dict(zip(part.inputs, (v.numpy() for v in x), strict=True))))


def _write_program(part: Part, path: Path) -> None:
    with _quiet():
        program = torch.export.export(part, part.example(2), dynamic_shapes=_any_batch(part))
        torch.export.save(program, path, extra_files=facts_of(part))
        loaded = torch.export.load(path).module()
    verify(part, lambda *x: found if isinstance(found := loaded(*x), tuple) else (found,))


def facts_of(part: Part) -> dict[str, str]:
    """What has to be known to use a part, as its file states it: each in JSON."""
    model: Any = part.model
    known = {"model": type(model).__name__, "shape": list(model.shape), "levels": model.levels, **part.facts}
    return {name: json.dumps(value) for name, value in known.items()}


def verify(part: Part, run: Callable[..., Sequence[Any]]) -> None:
    """Raises ValueError unless a file says what the model says, of batches of one, two and five."""
    for batch in (1, 2, 5):
        x = part.example(batch)
        expected = part(*x)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for name, ours, theirs in zip(part.outputs, expected, map(torch.as_tensor, run(*x)), strict=True):
            close = theirs.shape == ours.shape
            worst = float(((ours - theirs).abs() / ours.abs().clamp_min(1)).max()) if close else math.inf
            if not worst <= TOLERANCE:
                raise ValueError(
                    f"export: {name} of a batch of {batch} is off by {worst:.2g}, more than {TOLERANCE:g}; what was"
                    " written is thrown away."
                )


def _any_batch(part: Part) -> tuple[Any, ...]:
    batch = torch.export.Dim("batch")
    return (tuple({0: batch} for _ in part.inputs),)  # of the one argument, *inputs


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say of their own progress."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
