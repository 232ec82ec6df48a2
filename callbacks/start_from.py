"""Training that goes on from weights published before: fine-tuning, or another objective for the same networks."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from genzoo.zoo import hub
from genzoo.zoo.module import ZooModule


class StartFrom(Callback):
    """Begins training at the weights of an entry of the zoo. A resumed run keeps the weights of its checkpoint.

    Args:
        source: what `genzoo.load` takes: a name, a folder, or an address.

    Raises:
        ValueError: before training starts, if the entry's weights do not fit the module, name by name.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads the weights; an average of weights, which begins later, begins there."""
        if stage != TrainerFn.FITTING or trainer.ckpt_path is not None:
            return
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
        pl_module.load_state_dict(state)


def _found_anew(module: LightningModule) -> set[str]:
    return set(module.with_later_buffers({})) if isinstance(module, ZooModule) else set()


def _size(state: dict[str, Any], name: str) -> tuple[int, ...] | str:
    return tuple(state[name].shape) if name in state else "none"
