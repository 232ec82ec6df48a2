"""Training that goes on from weights published before: fine-tuning, or another objective for the same networks."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from genzoo.zoo import hub
from genzoo.zoo.module import ZooModule


class StartFrom(Callback):
    """Begins training at the weights of an entry of the zoo.

    A resumed run keeps the weights of its checkpoint, and a Trainer that goes on with a further `fit` those that it
    has trained.

    Args:
        source: what `genzoo.load` takes: a name, a folder, or an address.

    Raises:
        ValueError: before training starts, if the entry's weights do not fit the module, name by name.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._failed: OSError | ValueError | None = None  # why the weights could not be loaded
        self._begun: LightningModule | None = None  # whose training began with them, or went on without

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads the weights; an average of weights, which begins later, begins there."""
        self._failed = None
        goes_on = trainer.global_step > 0 and self._begun is pl_module
        if stage == TrainerFn.FITTING and not goes_on:
            try:
                self._load(pl_module)
            except (OSError, ValueError) as error:  # a run that is resumed, which nobody knows yet, can do without
                self._failed = error

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A run that is resumed has weights of its own, whatever has become of the entry."""
        self._failed = None

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises what went wrong, before anything is computed."""
        if self._failed is not None:
            raise self._failed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As `on_sanity_check_start`, where there is none."""
        self.on_sanity_check_start(trainer, pl_module)
        self._begun = pl_module

    def _load(self, pl_module: LightningModule) -> None:
        source = hub.load(self.source)
        state, own = source.state_dict(), pl_module.state_dict()
        # what a training finds out anew (a chain's variances, the classes' shares) need not fit, nor be there at all
        anew = {
            name for name in _found_anew(source) | _found_anew(pl_module) if _size(state, name) != _size(own, name)
        }
        state = {name: value for name, value in state.items() if name not in anew}
        state |= {name: own[name] for name in anew & own.keys()}
        misfits = [
            f"{name}: {_size(state, name)} there, {_size(own, name)} here"
            for name in sorted(state.keys() | own.keys())
            if _size(state, name) != _size(own, name)
        ]
        if misfits:
            raise ValueError(
                f"StartFrom: the weights of {self.source} do not fit this {type(pl_module).__name__}; build it with"
                f" the arguments in the entry's config.yaml. {len(misfits)} differ: {'; '.join(misfits[:3])}"
                + ("; …" if len(misfits) > 3 else ".")
            )
        if isinstance(pl_module, ZooModule):
            pl_module.check_source(source, but=("class_names", "sample_rate"), called=str(self.source))
            pl_module.column_names = getattr(source, "column_names", ())  # with which those of the data are compared
        pl_module.load_state_dict(state)


def _found_anew(module: LightningModule) -> set[str]:
    return set(module.with_later_buffers({})) if isinstance(module, ZooModule) else set()


def _size(state: dict[str, Any], name: str) -> tuple[int, ...] | str:
    return tuple(state[name].shape) if name in state else "none"
