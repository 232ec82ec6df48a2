"""What a model says of each datum, as a table."""

import csv
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from genzoo.zoo.files import at_home, whole
from genzoo.zoo.processes import gather, rank


class PredictionWriter(Callback):
    """Writes what `predict_step` returns as a CSV file, a row a datum in the order of the data, and says where it is.

    The first columns say which datum it is: `row`, its number in what was predicted, from 0; `file`, the path that it
    was read from, where the datamodule knows one (the pieces of a recording all have that of the recording). Then
    comes a column for each number that is said of it, under its key: `log_prob`. Where there are several, (B, C),
    they are `probabilities_0`, `probabilities_1`, …; a tensor that is returned by itself is `prediction`. With
    several dataloaders the very first column is `data`, the loader's number.

    Args:
        path: of the file; None is `predictions.csv` in the Trainer's `default_root_dir`, which is the run's folder
            where `genzoo predict` has built the Trainer.

    Raises:
        ValueError: at the first batch, if `predict_step` returns no numbers for each datum.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins a new table."""
        self._said: dict[int, list[dict[str, str]]] = defaultdict(list)  # of each datum, by its loader
        self._num_batches: dict[int, int] = defaultdict(int)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes down what was said of a batch."""
        said = outputs if isinstance(outputs, Mapping) else {"prediction": outputs}
        sizes = {value.shape[:1] if isinstance(value, Tensor) else () for value in said.values()}
        if len(sizes) != 1 or () in sizes:
            found = {key: tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__ for key, v in said.items()}
            raise ValueError(
                f"PredictionWriter: {type(pl_module).__name__}.predict_step returned {found or 'nothing'}, but a"
                " table takes one or several tensors, by name, with a row for each datum."
            )
        columns = dict(chain.from_iterable(columns_of(str(key), value) for key, value in said.items()))
        self._said[dataloader_idx] += [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
        self._num_batches[dataloader_idx] += 1

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the shares of all processes in order, and writes the table.

        Raises:
            ValueError: if more or less was said than there are data.
        """
        loaders = trainer.predict_dataloaders
        loaders = list(loaders) if isinstance(loaders, list | tuple) else [loaders]
        share: list[dict[str, Any]] = []
        for number, said in self._said.items():
            rows, files = origins(loaders[number], self._num_batches[number])
            if rows is not None and len(rows) != len(said):
                raise ValueError(
                    f"PredictionWriter: {type(pl_module).__name__}.predict_step returned {len(said)} rows for"
                    f" {len(rows)} data: return one for each."
                )
            for place, columns in enumerate(said):
                line: dict[str, Any] = {"data": number, "row": None if rows is None else rows[place]}
                if rows is not None and files is not None:
                    line["file"] = files[rows[place]]
                share.append(line | columns)
        table = list(chain.from_iterable(gather(share)))
        if rank() == 0:
            path = at_home(self.path or Path(trainer.default_root_dir, "predictions.csv"))
            write(path, table, several=len(loaders) > 1)
            rank_zero_info(f"What {type(pl_module).__name__} says of {len(table)} data is in {os.path.relpath(path)}")


def columns_of(name: str, values: Tensor) -> list[tuple[str, list[str]]]:
    """(B, …) numbers as columns of B, in as many digits as tell them from all others of their precision."""
    values = values.detach().cpu()
    if values.is_floating_point() and values.element_size() < 4:
        values = values.float()  # NumPy has no bfloat16
    flat = values.flatten(1).T.numpy() if values.ndim > 1 else values[None].numpy()
    names = [name] if len(flat) == 1 else [f"{name}_{i}" for i in range(len(flat))]
    return [(name, [str(value) for value in column]) for name, column in zip(names, flat, strict=True)]


def origins(loader: Any, num_batches: int) -> tuple[list[int] | None, Sequence[str] | None]:
    """The numbers of the data in this process's first batches, and the files of all, as far as a loader tells."""
    if hasattr(loader, "batch_rows"):  # genzoo's
        batches: list[list[int]] | None = [rows.tolist() for rows in loader.batch_rows()]
        files = loader.files
    else:  # in a torch DataLoader Lightning writes it down
        batches = getattr(getattr(loader, "batch_sampler", None), "seen_batch_indices", None)
        files = None
    return None if batches is None else list(chain.from_iterable(batches[:num_batches])), files


def write(path: Path, table: list[dict[str, Any]], several: bool) -> None:
    """The table as a file, whole or not at all; rows that have no number are numbered as they come."""
    numbers: dict[int, count[int]] = defaultdict(count)
    for line in table:
        if line["row"] is None:
            line["row"] = next(numbers[line["data"]])
    table.sort(key=lambda line: (line["data"], line["row"]))
    names = [name for name in dict.fromkeys(chain.from_iterable(table)) if several or name != "data"]
    with whole(path) as half, half.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, names, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
