"""`genzoo fit validate test predict`: Lightning's command line, with recipes, run folders and plain errors.

Kept apart from `genzoo.cli`: importing Lightning takes seconds, and the small commands need none of it.
"""

import inspect
import logging
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import genzoo.callbacks
import genzoo.datamodules
import genzoo.zoo
from genzoo import recipes
from genzoo.arguments import import_from_here
from genzoo.callbacks import PredictionWriter
from genzoo.errors import debugging, refuse

# A recipe can call a class by its bare name, and a checkpoint can be read, once the class is imported.
for _package in (genzoo.callbacks, genzoo.datamodules, genzoo.zoo):
    for _name in _package.__all__:
        getattr(_package, _name)

# what the data state and a model may take
CONTRACT = ("shape", "levels", "num_classes", "vocabulary", "sample_rate")
RUN_FOLDER = "GENZOO_RUN_FOLDER"  # how rank 0 tells the processes that it launches where the run is kept
HERE = "."  # a logger's save_dir that stands for the run folder


def run(argv: list[str]) -> None:
    """Runs `argv` (`["fit", "--config", "mnist/vae", …]`), whose recipes are given by name or by path.

    Raises:
        SystemExit: 2, after one readable error, for a mistake in the arguments, the recipe or the data.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="jsonargparse|lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    if argv[0] != "fit":  # measuring has a folder of its own, and that is no cause for concern
        warnings.filterwarnings("ignore", message="The dirpath has changed.*")
    advertisements = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    advertisements.addFilter(lambda record: "Tip:" not in record.getMessage())
    import_from_here()
    try:
        argv, name = find_recipes(argv)
    except (FileNotFoundError, ValueError) as error:
        refuse(str(error))
    GenzooCLI(argv, name)


# ---------------------------------------------------------------------------------------------------- recipes


def find_recipes(argv: list[str]) -> tuple[list[str], str | None]:
    """Replaces each recipe's name after `--config` by its path; also returns what the run is to be called.

    Raises:
        FileNotFoundError: there is no such recipe.
        ValueError: a file of one's own is not YAML.
    """
    found, name = list(argv), None
    for i, argument in enumerate(argv):
        if argument.startswith("--config="):
            recipe = argument.removeprefix("--config=")
            found[i] = f"--config={parsable(recipes.find(recipe))}"
        elif argument in {"-c", "--config"} and i + 1 < len(argv):
            recipe = argv[i + 1]
            found[i + 1] = str(parsable(recipes.find(recipe)))
        else:
            continue
        name = name or run_name(recipe)  # the first is the recipe, those after it override
    return found, name


def parsable(path: Path) -> Path:
    """The path of a file that is YAML; jsonargparse would not say which of several is not."""
    try:
        yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return path


def run_name(recipe: str) -> str:
    """`mnist/vae` for that recipe and for the `config.yaml` that a run of it left; else the file's stem."""
    if recipe.removesuffix(".yaml") in recipes.names():
        return recipe.removesuffix(".yaml")
    path = Path(recipe).absolute()
    if path.name == "config.yaml" and "runs" in path.parts:
        runs = len(path.parts) - path.parts[::-1].index("runs")
        return "/".join(path.parts[runs:-2]) or path.stem
    return path.stem


# ----------------------------------------------------------------------------------------------- plain errors

NOISE = ("Subtypes:", "Errors:", "Does not validate", "Expected a <class 'NoneType'>", "Expected a path but")


def readable(message: str) -> str:
    """What an error of jsonargparse's says, in a line, without its type names and raw namespaces."""
    said: list[str] = []
    for line in message.splitlines():
        line = line.strip().removeprefix("- ")
        if line.startswith((*NOISE, "Given value type:", "Given value: Namespace", "Given value: NestedArg")):
            continue
        line = re.sub(r'^Parser key "(.*)":$', r"\1:", line)
        line = re.sub(r"Expected an? <class '(.*?)'>", r"expected \1", line)
        line = re.sub(r"^Expected a dot import path string: (.*)$", r"no class is called \1", line)
        line = re.sub(r"^Given value: ", "given ", line)
        if line and line not in said:
            said.append(line)
    return re.sub(r":[,;] ", ": ", "; ".join(said)) or message


class Parser(LightningArgumentParser):
    """A parser that answers a mistake with one readable error instead of five hundred lines of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)  # or `max_epoch` would pass for `max_epochs`
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: D102
        if not self.exit_on_error:  # a parser that jsonargparse nests in ours, whose error ours completes
            super().error(message, ex)
        if debugging() and ex is not None:
            raise ex
        refuse(f"{readable(message)} (`{self.prog.replace(' [options]', '')} --help` lists what is accepted)")


def refuse_nulls(config: Any, key: str) -> None:
    """Refuses `null` where the type has no None: jsonargparse lets it through to the constructor."""
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
            refuse(f"{key}.init_args.{argument} is null, but {expected} is expected; leave it out")
        refuse_nulls(value, f"{key}.init_args.{argument}")


# --------------------------------------------------------------------------------------------------- the runs


def is_rank_zero() -> bool:
    """Whether this process is the one that writes files."""
    return getattr(rank_zero_only, "rank", 0) == 0


class SaveConfig(SaveConfigCallback):
    """Writes the resolved configuration beside the checkpoints, in one piece, before training begins.

    It says nothing of the run folder, so a run can be repeated from it and keeps its hands off the first.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, folder: Path) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.folder = folder

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        half = self.folder / "config.yaml.tmp"
        half.write_text(self.parser.dump(self.config, skip_none=False))
        os.replace(half, self.folder / "config.yaml")


class WholeFiles(TorchCheckpointIO):
    """Puts a checkpoint in its place at once, when all of it is on the disk.

    Lightning moves it there from the system's folder for temporary files. Where that is another disk, to move is to
    copy, and a run that is killed meanwhile would have spoilt the very checkpoint that it is to be resumed from.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: D102
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        super().save_checkpoint(checkpoint, f"{path}.part", storage_options)
        os.replace(f"{path}.part", path)


class GenzooCLI(LightningCLI):
    """LightningCLI for any model and any data, with four habits of its own.

    What the data state (`CONTRACT`: `shape`, `levels`, …) goes to the model wherever it takes it. Each run has a
    fresh folder, `runs/<recipe>/<time>` (below `--trainer.default_root_dir`, where given), for checkpoints,
    logs and the resolved configuration. The recipe wins over the hyperparameters that a checkpoint carries.
    An error that comes before the first training step is one line.

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

    # ---- before anything is built

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:  # noqa: D102
        for contract in CONTRACT:
            parser.link_arguments(f"data.{contract}", f"model.init_args.{contract}", apply_on="instantiate")
        flat = {"save_dir": HERE, "name": "", "version": ""}  # <run>/metrics.csv, no version_0 below it
        csv = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": flat}
        parser.set_defaults({"trainer.logger": csv})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: D102
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        # Lightning would let the checkpoint's hyperparameters override the recipe and the command line here.
        command = self.config.subcommand
        checkpoint = self.config[command].ckpt_path
        if checkpoint is None:
            if command != "fit":
                refuse(f"`{command}` without --ckpt_path would measure random weights; give a checkpoint's file")
        elif "://" not in checkpoint:
            if not Path(checkpoint).exists():
                refuse(f"--ckpt_path {checkpoint} does not exist; give a file that a run left in checkpoints/")
            if Path(checkpoint).is_file() and not zipfile.is_zipfile(checkpoint):
                refuse(f"--ckpt_path {checkpoint} is no checkpoint, or one that was cut short")

    def before_instantiate_classes(self) -> None:  # noqa: D102
        for key in ("model", "data"):
            refuse_nulls(self.config[self.subcommand].get(key), key)
        self.parser.add_instantiator(self.build_logger, Logger, subclasses=True)
        self.parser.add_instantiator(self.build_checkpoint, ModelCheckpoint, subclasses=True)

    # ---- the run folder

    @cached_property
    def run_folder(self) -> Path:
        """The folder of this run, made when first asked for; never one that was there before."""
        if not is_rank_zero() and RUN_FOLDER in os.environ:
            return Path(os.environ[RUN_FOLDER])
        given = self.config[self.subcommand]
        base = Path(given.trainer.default_root_dir or "runs", self.name or given.model.class_path.split(".")[-1])
        stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}" + ("" if self.subcommand == "fit" else f"_{self.subcommand}")
        for attempt in count(1):
            folder = base / (stamp if attempt == 1 else f"{stamp}_{attempt}")
            if not is_rank_zero():  # launched from outside: Lightning broadcasts what rank 0 chose
                return folder
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                continue
            except OSError as error:
                refuse(f"no run can be kept in {base} ({error.strerror}); give a --trainer.default_root_dir")
        os.environ[RUN_FOLDER] = str(folder.absolute())
        return folder

    def build_logger(self, kind: type[Logger], *args: Any, **kwargs: Any) -> Logger:
        """A logger whose `save_dir` was left open writes into the run folder."""
        if kwargs.get("save_dir") == HERE:
            kwargs["save_dir"] = str(self.run_folder)
        if issubclass(kind, WandbLogger):
            kwargs["name"] = kwargs.get("name") or "/".join(self.run_folder.parts[-3:])
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
        keeps = any(isinstance(callback, Checkpoint) for callback in config["callbacks"])
        if self.subcommand == "fit" and not keeps and config["enable_checkpointing"] is not False:
            config["callbacks"].append(self.build_checkpoint(ModelCheckpoint))
        if self.subcommand == "predict" and PredictionWriter not in map(type, config["callbacks"]):
            config["callbacks"].append(PredictionWriter())
        bars = any(isinstance(callback, ProgressBar) for callback in config["callbacks"])
        if not bars and config["enable_progress_bar"] is not False:
            config["callbacks"].append(RichProgressBar(refresh_rate=10))  # one at every step costs a small model dear
        self.save_config_kwargs = {"folder": self.run_folder}
        trainer = super()._instantiate_trainer(config, callbacks)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # a strategy or a plugin may have its own
            trainer.strategy.checkpoint_io = WholeFiles()
        return trainer

    # ---- building and running

    def instantiate_classes(self) -> None:  # noqa: D102
        with self.plain_errors():
            super().instantiate_classes()
        # Lightning records every linked value, also one that the model does not take: reloading would fail.
        taken: set[str] = set()
        for cls in type(self.model).__mro__:  # **arguments go on to the next class
            parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
            taken |= set(parameters)
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                for contract in set(CONTRACT) - taken:
                    self.model.hparams.pop(contract, None)
                break

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            with self.plain_errors():
                super()._run_subcommand(subcommand)
        except SIGTERMException:  # which Lightning lets end the program as if all were done
            print(f"genzoo: terminated at step {self.trainer.global_step} of {self.run_folder}", file=sys.stderr)
            raise SystemExit(143) from None
        self.tidy()

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Before the first training step an error is one line; after it, a traceback, as a bug deserves."""
        try:
            yield
        except (
            AttributeError,
            TypeError,
            ValueError,
            OSError,
            RuntimeError,
            MisconfigurationException,
        ) as error:
            trainer = getattr(self, "trainer", None)
            if debugging() or (trainer is not None and trainer.global_step > 0):
                raise
            self.tidy()
            refuse(f"{readable(str(error))} (GENZOO_DEBUG=1 shows where)")

    def tidy(self) -> None:
        """Takes the run folder away again where nothing was written into it: a dry run, a refused one."""
        if "run_folder" in vars(self) and is_rank_zero():
            with suppress(OSError):
                self.run_folder.rmdir()

    def after_fit(self) -> None:
        """Says where the run lies and what it came to."""
        if not is_rank_zero():
            return
        print(f"\nrun         {self.run_folder if self.run_folder.exists() else 'left nothing behind'}")
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", None)
        if best:
            print(f"checkpoint  {os.path.relpath(best)}")
        figures = {key: float(value) for key, value in sorted(self.trainer.callback_metrics.items())}
        width = max(map(len, figures), default=0)
        for key, value in figures.items():
            print(f"  {key:<{width}}  {value:.6g}")
