"""`genzoo fit validate test predict`: Lightning's command line, with recipes, run folders and plain errors.

Kept apart from `genzoo.cli`: importing Lightning takes seconds, and the small commands need none of it.
"""

import logging
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from signal import SIGINT, SIGTERM
from traceback import walk_tb
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import genzoo.callbacks
import genzoo.datamodules
import genzoo.zoo
from genzoo import recipes
from genzoo.advice import in_our_words
from genzoo.arguments import import_from_here, note
from genzoo.callbacks import Forecast, Newest, PredictionWriter
from genzoo.cards import without_cards
from genzoo.errors import debugging, refuse
from genzoo.fine_tuning import with_source
from genzoo.parsing import Parser, parsable, readable, refuse_nulls, taken
from genzoo.precision import has_float64, settled
from genzoo.progress import Progress
from genzoo.resuming import FitLoop, WholeFiles
from genzoo.trainer import AutoTrainer
from genzoo.zoo.compiling import compile_networks
from genzoo.zoo.files import at_home
from genzoo.zoo.hub.checkpoints import data_of_run, newest_run

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
    checkpoints = logging.getLogger("lightning.pytorch.trainer.connectors.checkpoint_connector")
    checkpoints.addFilter(lambda record: "weights_only" not in record.getMessage())  # at each that is written
    advertisements = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    advertisements.addFilter(lambda record: "Tip:" not in record.getMessage())
    import_from_here()
    try:
        argv, name = find_recipes(argv)
        argv = with_source(argv, CONTRACT)
    except (OSError, ValueError) as error:
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


def run_name(recipe: str) -> str:
    """`mnist/vae` for that recipe and for the `config.yaml` that a run of it left; else the file's stem."""
    if recipe.removesuffix(".yaml") in recipes.names():
        return recipe.removesuffix(".yaml")
    path = Path(recipe).absolute()
    if path.name == "config.yaml" and "runs" in path.parts:
        runs = len(path.parts) - path.parts[::-1].index("runs")
        return "/".join(path.parts[runs:-2]) or path.stem
    return path.stem


def foreseen(error: Exception) -> bool:
    """Whether it says all there is to say: the disk's errors do, and those that genzoo's own code raises."""
    where = [frame for frame, _ in walk_tb(error.__traceback__)][-1]
    ours = str(where.f_globals.get("__name__")).partition(".")[0] == "genzoo"
    return isinstance(error, OSError) or (ours and isinstance(error, TypeError | ValueError))


# --------------------------------------------------------------------------------------------------- the runs


def slurm_job() -> str | None:
    """The job in which SLURM runs this process, which keeps its number when it is requeued."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def settle(data: Any, known: Mapping[str, Any]) -> None:
    """Puts what is known in the place of each `auto` among the data's arguments, as a run's record has it."""
    arguments = data.get("init_args") or {}
    for name in [name for name, value in arguments.items() if value == "auto" and name in known]:
        arguments[name] = known[name]


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
        half.write_text(self.parser.dump(self.config, skip_none=False), encoding="utf-8")
        os.replace(half, self.folder / "config.yaml")


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
        self.name, self.asked = name, argv[0]
        self.reason: str | None = None  # for the precision, where that was left to us
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            trainer_class=AutoTrainer,
            seed_everything_default=0,
            auto_configure_optimizers=False,  # the optimiser is an argument of the model
            parser_class=Parser,
            parser_kwargs={"prog": "genzoo"},
            args=argv,
        )

    # ---- before anything is built

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that was asked for: of each, a parser takes a tenth of a second."""
        return {self.asked: super().subcommands()[self.asked]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:  # noqa: D102
        for contract in CONTRACT:
            parser.link_arguments(f"data.{contract}", f"model.init_args.{contract}", apply_on="instantiate")
        parser.add_argument(
            "--compile",
            action="store_true",
            help="Compile the networks by torch.compile: worth it for long runs alone.",
        )
        flat = {"save_dir": HERE, "name": "", "version": ""}  # <run>/metrics.csv, no version_0 below it
        csv = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": flat}
        parser.set_defaults({"trainer.logger": csv})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: D102
        self.config = parser.parse_args(args)
        if self.asked == "fit" and (own := without_cards(args, self.config.fit.data)) != args:
            self.config = parser.parse_args(own)
            if is_rank_zero():
                note(f"the card of {self.name} is of its own data: nothing of it is published with these, no licence")
        refuse_nulls(self.config[self.config.subcommand].trainer, "trainer", Trainer)

    def _parse_ckpt_path(self) -> None:
        # Lightning would let the checkpoint's hyperparameters override the recipe and the command line here.
        command = self.config.subcommand
        given = self.config[command]
        if "://" in (root := str(given.trainer.default_root_dir)):
            refuse(f"--trainer.default_root_dir {root}: a run is kept in a folder; publish to an address at its end")
        if command == "fit" and (requeued := self.requeued()):
            print(f"genzoo: job {slurm_job()} goes on from {requeued}", file=sys.stderr)
            given.ckpt_path = str(requeued)
        checkpoint = given.ckpt_path
        if checkpoint is None:
            if command != "fit":
                refuse(f"`{command}` without --ckpt_path would measure random weights; give a checkpoint's file")
        elif "://" not in checkpoint:
            given.ckpt_path = checkpoint = str(at_home(checkpoint))
            if not Path(checkpoint).exists():
                refuse(f"--ckpt_path {checkpoint} does not exist; give a file that a run left in checkpoints/")
            if Path(checkpoint).is_file() and not zipfile.is_zipfile(checkpoint):
                refuse(f"--ckpt_path {checkpoint} is no checkpoint, or one that was cut short")
            if run := newest_run(Path(checkpoint)):
                refuse(f"--ckpt_path {checkpoint} is a folder; give a file of a run's, of those in {run}/checkpoints")
        if given.trainer.accelerator == "auto" and not has_float64("auto"):
            given.trainer.accelerator = "cpu"
            if is_rank_zero():
                note(
                    "on the CPU: likelihoods take float64, which Apple's GPU has not; what has none, as a GAN,"
                    " trains there by --trainer.accelerator mps"
                )
        if given.trainer.precision == "auto":
            given.trainer.precision, self.reason = settled(given.trainer.accelerator, checkpoint)

    def _set_seed(self) -> None:
        with self.plain_errors():
            super()._set_seed()

    def before_instantiate_classes(self) -> None:  # noqa: D102
        given = self.config[self.subcommand]
        if given.ckpt_path is not None and "://" not in given.ckpt_path:
            settle(given.data, data_of_run(Path(given.ckpt_path)))
        for key in ("model", "data"):
            refuse_nulls(given.get(key), key, linked=CONTRACT)  # the data will say
        self.parser.add_instantiator(self.build_logger, Logger, subclasses=True)
        self.parser.add_instantiator(self.build_checkpoint, ModelCheckpoint, subclasses=True)

    # ---- the run folder

    @property
    def runs(self) -> Path:
        """The folder in which the runs of this recipe have theirs."""
        given = self.config[self.config.subcommand]
        return at_home(given.trainer.default_root_dir or "runs") / (
            self.name or given.model.class_path.split(".")[-1]
        )

    def requeued(self) -> Path | None:
        """The newest checkpoint of this very command, if SLURM has interrupted it and now runs its job again."""
        if slurm_job() is None or int(os.environ.get("SLURM_RESTART_COUNT") or 0) == 0:
            return None
        own = yaml.safe_load(self._parser("fit").dump(self.config["fit"], skip_none=False))
        of_this_job = re.compile(rf".*_job-{slurm_job()}(_\d+)?")  # and no other whose number begins alike
        for folder in sorted(self.runs.glob("*_job-*"), reverse=True):
            if not of_this_job.fullmatch(folder.name):
                continue
            written = folder / "config.yaml"
            kept = [*folder.glob("checkpoints/last.ckpt"), *folder.glob("hpc_ckpt_*.ckpt")]
            if not kept or not written.is_file():
                continue
            then = yaml.safe_load(written.read_text("utf-8"))
            if own["trainer"]["precision"] == "auto":  # which was settled there
                then["trainer"]["precision"] = "auto"
            settle(own["data"], then["data"].get("init_args") or {})
            if then | {"ckpt_path": None} == own | {"ckpt_path": None}:  # it may have gone on from one itself
                return max(kept, key=lambda path: path.stat().st_mtime_ns)
        return None

    @cached_property
    def run_folder(self) -> Path:
        """The folder of this run, made when first asked for; never one that was there before."""
        if not is_rank_zero() and RUN_FOLDER in os.environ:
            return Path(os.environ[RUN_FOLDER])
        base, job = self.runs, slurm_job()
        stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}" + ("" if job is None else f"_job-{job}")
        stamp += "" if self.subcommand == "fit" else f"_{self.subcommand}"
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
        """Checkpoints lie in the run folder, whichever logger there is, unless the recipe says where.

        There `last.ckpt` is `Newest`'s; Lightning's `save_last` would keep the last that was better than all before.
        """
        if kwargs.get("dirpath") is None:
            kwargs |= {"dirpath": str(self.run_folder / "checkpoints"), "save_last": None}
        return kind(*args, **kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        config["default_root_dir"] = str(self.run_folder)
        given = config["callbacks"] or []
        config["callbacks"] = list(given) if isinstance(given, list) else [given]
        keeps = any(isinstance(callback, Newest) for callback in config["callbacks"])
        if self.subcommand == "fit" and not keeps and config["enable_checkpointing"] is not False:
            config["callbacks"].append(Newest(self.run_folder / "checkpoints"))
        if self.subcommand == "fit" and Forecast not in map(type, config["callbacks"]):
            config["callbacks"].append(Forecast())
        if self.subcommand == "predict" and PredictionWriter not in map(type, config["callbacks"]):
            config["callbacks"].append(PredictionWriter())
        bars = any(isinstance(callback, ProgressBar) for callback in config["callbacks"])
        if not bars and config["enable_progress_bar"] is not False:
            config["callbacks"].append(Progress())
        self.save_config_kwargs = {"folder": self.run_folder}
        trainer = super()._instantiate_trainer(config, callbacks)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # a strategy or a plugin may have its own
            trainer.strategy.checkpoint_io = WholeFiles()
        FitLoop.install(trainer)
        return trainer

    # ---- building and running

    def instantiate_classes(self) -> None:  # noqa: D102
        with self.plain_errors():
            super().instantiate_classes()
            settle(self.config[self.subcommand].data, self.datamodule.hparams)
            if self.config[self.subcommand].compile:
                compile_networks(self.model, self.trainer.strategy.root_device)
        # Lightning records every linked value, also one that the model does not take: reloading would fail.
        for contract in set(CONTRACT) - set(taken(type(self.model))):
            self.model.hparams.pop(contract, None)

    def _run_subcommand(self, subcommand: str) -> None:
        if self.reason is not None and is_rank_zero():
            print(f"genzoo: precision {self.trainer.precision}, {self.reason}", file=sys.stderr)
        try:
            with self.plain_errors():
                super()._run_subcommand(subcommand)
        except SystemExit as ended:
            # Lightning ends a run on SIGTERM as if all were done, and one on Ctrl-C as a failure
            number = SIGTERM if isinstance(ended, SIGTERMException) else None
            number = SIGINT if isinstance(ended.__context__, KeyboardInterrupt) else number
            if number is None:
                raise
            print(f"genzoo: stopped at {self.newest()}", file=sys.stderr)
            raise SystemExit(128 + number) from None
        self.tidy()

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """An error that can be foreseen is one line; one from amid the training steps a traceback, as a bug deserves.

        Before the first step any mistake of the recipe's counts as foreseen; after it, what genzoo itself raises (odd
        data, a loss that is no number), and what the disk does.
        """
        try:
            yield
        except Exception as error:
            trainer = getattr(self, "trainer", None)
            step = 0 if trainer is None else trainer.global_step
            advice = in_our_words(error)
            if debugging() or (step > 0 and advice is None and not foreseen(error)):
                raise
            self.tidy(refused=step == 0)
            said = advice or readable(str(error)) or type(error).__name__
            refuse(f"{said} ({self.newest() if step > 0 else 'GENZOO_DEBUG=1 shows where'})")

    def newest(self) -> str:
        """Where a run that broke off can go on from."""
        paths = [
            c.path for c in self.trainer.checkpoint_callbacks if isinstance(c, Newest) and os.path.exists(c.path)
        ]
        step = f"step {self.trainer.global_step}"
        return f"{step}; the newest checkpoint is {os.path.relpath(paths[0])}" if paths else f"{step}; no checkpoint"

    def tidy(self, *, refused: bool = False) -> None:
        """Takes the run folder away again where nothing was written into it: a dry run, a refused one.

        Of one that was refused late there is nothing but its configuration.
        """
        if "run_folder" in vars(self) and is_rank_zero():
            with suppress(OSError):
                config = self.run_folder / "config.yaml"
                if refused and list(self.run_folder.iterdir()) == [config]:
                    config.unlink()
                self.run_folder.rmdir()

    def after_fit(self) -> None:
        """Says where the run lies and what it came to."""
        if not is_rank_zero():
            return
        print(f"\nrun         {self.run_folder if self.run_folder.exists() else 'left nothing behind'}")
        kept = {getattr(callback, "best_model_path", None) for callback in self.trainer.checkpoint_callbacks}
        kept |= {callback.path for callback in self.trainer.checkpoint_callbacks if isinstance(callback, Newest)}
        for path in sorted(path for path in kept if path and os.path.exists(path)):
            print(f"checkpoint  {os.path.relpath(path)}")
        figures = {key: float(value) for key, value in sorted(self.trainer.callback_metrics.items())}
        width = max(map(len, figures), default=0)
        for key, value in figures.items():
            print(f"  {key:<{width}}  {value:.6g}")
