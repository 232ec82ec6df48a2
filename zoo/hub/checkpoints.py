"""A training's checkpoint: a model that is no entry yet, but can be asked whatever an entry is asked.

Beside its checkpoints a run leaves its `config.yaml`, which says what data the model is for, and, where the run was
to publish, how precisely the weights are stored and how they are measured. That is the user's own; the checkpoint
itself is read as an entry is, without unpickling (`loading.py`).
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genzoo.zoo.hub import schema
from genzoo.zoo.hub.entries import CONFIG, Entry
from genzoo.zoo.hub.tasks import name_of, place_of
from genzoo.zoo.hub.wording import one_line

FOLDER, LAST = "checkpoints", "last.ckpt"  # of a run, and of its newest state


@dataclass(frozen=True)
class Checkpoint(Entry):
    """A file that a training wrote; `path` is that file, and what `Entry` reads of its files its run has said."""

    @property
    def run(self) -> dict[str, Any]:
        """The resolved configuration of its run; {} where there is none beside it."""
        above = run_config(self.path)
        return {} if above is None else read_run(above)

    @property
    def config(self) -> dict[str, Any]:
        """What the config.yaml of its entry would say of the model and the data."""
        arguments = dict(read_checkpoint(self.path, mmap=True)["hyper_parameters"])
        model = {"class_path": arguments.pop("_class_path", None), "init_args": arguments}
        stated = {name: arguments.get(name) for name in ("shape", "levels")}
        name = published(self.run).get("name") or self._called()
        return {"name": name, "model": model, "data": self.run.get("data"), **stated}

    def _called(self) -> str:
        """`mnist/vae` of a checkpoint in runs/mnist/vae/<time>; of one elsewhere the file's own name.

        Of data of one's own, which the recipe does not name, it is `photos/vae`, as `Publish` would call the entry.
        """
        above = run_config(self.path)
        parts = () if above is None else above.absolute().parent.parts
        runs = len(parts) - parts[::-1].index("runs") if "runs" in parts else len(parts)
        called = "/".join(parts[runs:-1]) or self.path.stem
        place = place_of(self.run.get("data"))
        return called if place is None else name_of(place, published(self.run).get("recipe") or called)

    @property
    def metrics(self) -> dict[str, Any]:
        """How its run would have it measured; it has no figures."""
        return {"evaluation": published(self.run).get("evaluation") or {}}

    @property
    def split_fingerprints(self) -> list[str]:
        """As the training's datamodule left them in the file."""
        key, states = "split_fingerprints", read_checkpoint(self.path, mmap=True).values()
        said: Any = next((state[key] for state in states if isinstance(state, dict) and key in state), [])
        if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
            raise ValueError(f"{self.path} is damaged: {key} is no list of texts")
        return said

    @property
    def dtype(self) -> schema.StoredAs:
        """How precisely its run would store the weights."""
        return published(self.run).get("dtype") or "float32"


def read_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU and without unpickling.

    Args:
        path: of the file.
        mmap: leave the tensors on the disk until they are looked at.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint of a model whose arguments are on record.
    """
    import torch

    if is_distributed(path):
        raise ValueError(
            f"{path} is a folder with a file of each process: make one file of it by"
            f" `python -m lightning.pytorch.utilities.consolidate_checkpoint {path}`"
        )
    if not zipfile.is_zipfile(path):  # raises nothing for a missing file
        path.stat()
        raise ValueError(f"{path} is no checkpoint, or one that was cut short")
    try:
        with zipfile.ZipFile(path) as file:
            if sum(part.file_size for part in file.infolist()) > path.stat().st_size:  # PyTorch compresses nothing
                raise ValueError("what it holds is longer than it is")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        return {**checkpoint, **{key: dict(checkpoint[key]) for key in ("hyper_parameters", "state_dict")}}
    except Exception as error:  # what is no checkpoint fails in a dozen ways
        said = one_line(f"{path} does not say how its model was built ({type(error).__name__}: {error})")
        raise ValueError(said) from None


def is_distributed(path: Path) -> bool:
    """Whether it is a checkpoint that is a folder, with a file of each process."""
    return (path / ".metadata").is_file()


def checkpoint_of(run: Path) -> Path | None:
    """The best checkpoint in a run's folder, where one monitored a figure, else its last; None where it has none."""
    found = sorted((run / FOLDER).rglob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        return None
    last = run / FOLDER / LAST if (run / FOLDER / LAST).is_file() else found[-1]
    callbacks = read_checkpoint(last, mmap=True).get("callbacks")
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        if isinstance(state, dict) and state.get("monitor") and state.get("best_model_path"):
            best, then = (Path(str(state.get(key))) for key in ("best_model_path", "dirpath"))
            here = run / FOLDER / best.relative_to(then) if best.is_relative_to(then) else best  # the folder may move
            if here in found:
                return here
    return last


def newest_run(folder: Path) -> Path | None:
    """The run that wrote last of those in a folder (`runs/mnist/vae`, or one above); a run's is its own; or None."""
    depths = ("/".join(["*"] * depth + [FOLDER]) for depth in range(4))
    found = [path for depth in depths for path in folder.glob(depth) if any(path.glob("**/*.ckpt"))]
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent if found else None


def data_of_run(checkpoint: Path) -> dict[str, Any]:
    """The arguments of the data, as the run's `config.yaml` says; {} if none does."""
    try:
        block = None if (config := run_config(checkpoint)) is None else read_run(config).get("data")
    except (ValueError, OSError):  # of something else, then
        return {}
    return dict(block.get("init_args") or {}) if isinstance(block, dict) else {}


def run_config(path: Path) -> Path | None:
    """The configuration that a run left beside its checkpoints; None where there is none."""
    above = list(path.absolute().parents)  # a metric with a slash in a file's name makes folders
    names = [folder.name for folder in above]
    for folder in above[: names.index(FOLDER) + 2 if FOLDER in names else 2]:
        if (folder / CONFIG).is_file():
            return folder / CONFIG
    return None


def read_run(path: Path) -> dict[str, Any]:
    """A run's configuration; ValueError if it is damaged."""
    return schema.checked(schema.read_yaml(path, own=True), schema.record({}), path)


def published(run: dict[str, Any]) -> dict[str, Any]:
    """What a run's configuration says of its `Publish`; {} where it had none.

    Raises:
        ValueError: if that is not what a `Publish` takes.
    """
    trainer = run.get("trainer")
    callbacks = trainer.get("callbacks") if isinstance(trainer, dict) else None
    for block in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(block, dict) and str(block.get("class_path")).rpartition(".")[2] == "Publish":
            said = block.get("init_args") or {}
            taken = {name: said[name] for name in schema.PUBLISHED if name in said} if isinstance(said, dict) else {}
            plain = dict(taken)
            if isinstance(asked := taken.get("evaluation"), dict):  # an extractor of one's own, say, is not heeded
                plain["evaluation"] = {name: value for name, value in asked.items() if not isinstance(value, dict)}
            schema.checked(plain, schema.record({}, schema.PUBLISHED), Path(CONFIG))
            return taken
    return {}
