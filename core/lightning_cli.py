"""`genzoo fit`, `validate`, `test`, `predict`: Lightning's command line, with recipes, run folders and plain errors.

Kept apart from `genzoo.cli`, because importing Lightning takes seconds and the small commands need none of it.
"""

import inspect
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NoReturn, get_args, get_type_hints

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import genzoo.callbacks
import genzoo.datamodules
import genzoo.zoo
from genzoo import recipes
from genzoo.cli import debugging, refuse

# A class can be called by its bare name in a recipe, and a checkpoint can be read, once the class is imported.
for _package in (genzoo.callbacks, genzoo.datamodules, genzoo.zoo):
    for _name in _package.__all__:
        getattr(_package, _name)

CONTRACT = ("shape", "levels", "num_classes")  # what the data state and a model may take
RUN_FOLDER = "GENZOO_RUN_FOLDER"  # how rank 0 tells the processes that it launches where the run is kept
HERE = "."  # a logger's save_dir that stands for the run folder


def run(argv: list[str]) -> None:
    """Runs `argv` (`["fit", "--config", "mnist/vae", …]`), whose recipes are given by name or by path.

    Raises:
        SystemExit: 2, after one readable error, for a mistake in the arguments, the recipe or the data.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="jsonargparse|lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda r: "Tip:" not in r.getMessage()
    )
    try:
        argv, name = find_recipes(argv)
    except FileNotFoundError as error:
        refuse(str(error))
    GenzooCLI(argv, name)


def find_recipes(argv: list[str]) -> tuple[list[str], str | None]:
    """Replaces each recipe's name after `--config` by its path; also returns what the run is to be called."""
    found, name = list(argv), None
    for i, argument in enumerate(argv):
        if argument.startswith("--config="):
            recipe = argument.removeprefix("--config=")
            found[i] = f"--config={recipes.find(recipe)}"
        elif argument in {"-c", "--config"} and i + 1 < len(argv):
            recipe = argv[i + 1]
            found[i + 1] = str(recipes.find(recipe))
        else:
            continue
        name = name or run_name(recipe)  # the first is the recipe, those after it override
    return found, name


def run_name(recipe: str) -> str:
    """`mnist/vae` for the recipe of that name, and for the `config.yaml` that one of its runs left; else the stem."""
    if recipe.removesuffix(".yaml") in recipes.names():
        return recipe.removesuffix(".yaml")
    path = Path(recipe).absolute()
    if path.name == "config.yaml" and "runs" in path.parts:
        runs = len(path.parts) - path.parts[::-1].index("runs")
        return "/".join(path.parts[runs:-2]) or path.stem
    return path.stem


def readable(message: str) -> str:
    """jsonargparse's account of an error without its type names and raw namespaces: what was wrong, in a line or two."""
    lines = []
    for line in message.splitlines():
        line = line.strip().removeprefix("- ").strip()
        if line.startswith(
            ("Given value", "Subtypes:", "Errors:", "Does not validate", "Expected a <class 'NoneType'>")
        ):
            continue
        line = re.sub(r'^Parser key "(.*)":$', r"\1:", line)
        line = re.sub(r"^Expected a dot import path string: (.*)$", r"no class is called \1", line)
        if line and line not in lines:
            lines.append(line)
    return " ".join(lines) or message


class Parser(LightningArgumentParser):
    """A parser that answers a mistake with one readable error instead of five hundred lines of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: D102
        if debugging() and ex is not None:
            raise ex
        refuse(f"{readable(message)} (`{self.prog.replace(' [options]', '')} --help` lists what is accepted)")


class SaveConfig(SaveConfigCallback):
    """Writes the resolved configuration beside the checkpoints, in one piece, before training begins.

    It says nothing of the run folder itself, so a run can be repeated from it without touching the first one's files.
    """

    def __init__(self, *args: Any, folder: Path, **kwargs: Any) -> None:
        super().__init__(*args, save_to_log_dir=False, **kwargs)
        self.folder = folder

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        self.folder.mkdir(parents=True, exist_ok=True)
        half = self.folder / "config.yaml.tmp"
        half.write_text(self.parser.dump(self.config, skip_none=False))
        os.replace(half, self.folder / "config.yaml")


class GenzooCLI(LightningCLI):
    """LightningCLI for any model and any data, with four habits of its own.

    The data's `shape`, `levels` and `num_classes` go to the model wherever it takes them. Each run has a fresh folder,
    `runs/<recipe>/<time>` (below `--trainer.default_root_dir` where that is given), for checkpoints, logs and the
    resolved configuration. The recipe wins over the hyperparameters that a checkpoint carries. An error that comes
    before the first training step is one line.

    Args:
        argv: The arguments, starting with the subcommand; recipes are paths by now.
        name: What the run is called; by default the model's class.
    """

    def __init__(self, argv: list[str], name: str | None = None) -> None:
        self.name = name
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,  # the optimiser is an argument of the model
            parser_class=Parser,
            parser_kwargs={"prog": "genzoo"},
            args=argv,
        )

    # --- before anything is built -------------------------------------------------------------------------------

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:  # noqa: D102
        for contract in CONTRACT:
            parser.link_arguments(f"data.{contract}", f"model.init_args.{contract}", apply_on="instantiate")
        logger = {"save_dir": HERE, "name": "", "version": ""}  # flat: <run>/metrics.csv
        parser.set_defaults(
            {"trainer.logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": logger}}
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: D102
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        # Lightning would let the checkpoint's hyperparameters override the recipe and the command line here.
        command = self.config.subcommand
        checkpoint = self.config[command].ckpt_path
        if checkpoint is None and command != "fit":
            refuse(
                f"`{command}` without --ckpt_path would measure random weights; give the file of a checkpoint"
            )
        if checkpoint is not None and "://" not in checkpoint and not Path(checkpoint).exists():
            refuse(
                f"--ckpt_path {checkpoint} does not exist; give the file that a run left in its checkpoints folder"
            )

    def before_instantiate_classes(self) -> None:  # noqa: D102
        given = self.config[self.config.subcommand]
        for key in ("model", "data"):
            refuse_nulls(given.get(key), key)
        self.parser.add_instantiator(self.build_logger, Logger, subclasses=True)
        self.parser.add_instantiator(self.build_checkpoint, ModelCheckpoint, subclasses=True)

    # --- the run folder -----------------------------------------------------------------------------------------

    @cached_property
    def run_folder(self) -> Path:
        """The folder of this run, made when first asked for; never one that was there before."""
        if rank_zero_only.rank != 0 and RUN_FOLDER in os.environ:
            return Path(os.environ[RUN_FOLDER])
        given = self.config[self.config.subcommand]
        name = self.name or given.model.class_path.rpartition(".")[2].lower()
        time = f"{datetime.now():%Y-%m-%d_%H-%M-%S}" + (
            "" if self.config.subcommand == "fit" else f"_{self.subcommand}"
        )
        for attempt in count(1):
            folder = Path(
                given.trainer.default_root_dir or "runs", name, time + (f"_{attempt}" if attempt > 1 else "")
            )
            if rank_zero_only.rank != 0:
                return folder
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                break
        os.environ[RUN_FOLDER] = str(folder.absolute())
        return folder

    def build_logger(self, kind: type[Logger], *args: Any, **kwargs: Any) -> Logger:
        """A logger whose `save_dir` was left open writes into the run folder."""
        if kwargs.get("save_dir") == HERE:
            kwargs["save_dir"] = str(self.run_folder)
        if issubclass(kind, WandbLogger):
            kwargs["name"] = kwargs.get("name") or f"{self.name} {self.run_folder.name}"
            kwargs["version"] = kwargs.get("version") or None
        return kind(*args, **kwargs)

    def build_checkpoint(self, kind: type[ModelCheckpoint], *args: Any, **kwargs: Any) -> ModelCheckpoint:
        """Checkpoints lie in the run folder, whichever logger there is, unless the recipe says where."""
        kwargs["dirpath"] = kwargs.get("dirpath") or str(self.run_folder / "checkpoints")
        return kind(*args, **kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        config["default_root_dir"] = str(self.run_folder)
        given = config["callbacks"] or []
        config["callbacks"] = list(given) if isinstance(given, list) else [given]
        wanted = (
            self.subcommand == "fit"
            and config["enable_checkpointing"] is not False
            and not config["barebones"]
        )
        if wanted and not any(isinstance(callback, Checkpoint) for callback in config["callbacks"]):
            config["callbacks"].append(self.build_checkpoint(ModelCheckpoint))
        self.save_config_kwargs = {"folder": self.run_folder}
        return super()._instantiate_trainer(config, callbacks)

    # --- building and running -----------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:  # noqa: D102
        with self.plain_errors():
            super().instantiate_classes()
        # Lightning records every linked value, also those that the model does not take and could not be rebuilt with.
        parameters = inspect.signature(type(self.model).__init__).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for contract in set(CONTRACT) - set(parameters):
                self.model.hparams.pop(contract, None)

    def _run_subcommand(self, subcommand: str) -> None:
        with self.plain_errors():
            super()._run_subcommand(subcommand)

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Until the first training step an error in the input is one line; after it, a traceback like any bug's."""
        try:
            yield
        except (TypeError, ValueError, OSError, MisconfigurationException) as error:
            trainer = getattr(self, "trainer", None)
            if debugging() or (trainer is not None and trainer.global_step > 0):
                raise
            refuse(readable(str(error)))
        finally:
            with suppress(OSError):
                if hasattr(self, "trainer") and rank_zero_only.rank == 0:
                    self.run_folder.rmdir()  # only where nothing was written into it: a dry run, a refused one

    def after_fit(self) -> None:
        """Says where the run lies and what it came to."""
        if rank_zero_only.rank != 0:
            return
        print(f"\nrun         {self.run_folder}")
        checkpoint = self.trainer.checkpoint_callback
        best = getattr(checkpoint, "best_model_path", None)
        if best:
            print(f"checkpoint  {best}")
        figures = {key: float(value) for key, value in sorted(self.trainer.callback_metrics.items())}
        width = max(map(len, figures), default=0)
        for key, value in figures.items():
            print(f"  {key:<{width}}  {value:.6g}")


def refuse_nulls(config: Any, key: str) -> None:
    """Refuses `null` where the type has no None: jsonargparse lets it through, and the constructor fails obscurely."""
    if not isinstance(config, Namespace) or "class_path" not in config:
        return
    try:
        hints = get_type_hints(resolve_name(config.class_path).__init__)
    except NameError:  # annotations that do not resolve say nothing
        hints = {}
    for argument, value in vars(config.get("init_args") or Namespace()).items():
        hint = hints.get(argument, Any)
        if argument in CONTRACT:  # the data will say
            continue
        if value is None and hint not in (Any, None) and type(None) not in get_args(hint):
            expected = getattr(hint, "__name__", hint)
            refuse(
                f"{key}.init_args.{argument} is null, but {expected} is expected; leave the line out for the default"
            )
        refuse_nulls(value, f"{key}.init_args.{argument}")
