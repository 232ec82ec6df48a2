"""Lightning's Trainer, of whose arguments a recipe may leave some open, and whose processes end in peace."""

import atexit
import gc
from datetime import timedelta
from typing import Any, Literal

import torch.distributed
from lightning.fabric.connector import _PRECISION_INPUT
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

#: how long a training is of which nothing else is said
LENGTH = timedelta(minutes=15)


class AutoTrainer(Trainer):
    """Lightning's, but for what a recipe may leave open. Each of its processes leaves its group before it ends.

    Args:
        precision: "auto" is settled (`genzoo.precision`) before a Trainer is built.
        max_time: "auto" is 15 minutes if neither max_steps nor max_epochs is given, and no limit if one of them is.
        kwargs: as Lightning's; but `data_parallel_size: auto` of a `ModelParallelStrategy` that has
            `tensor_parallel_size: 1` is all devices of all machines.
    """

    def __init__(
        self,
        *,
        precision: _PRECISION_INPUT | Literal["auto"] | None = None,
        max_time: str | timedelta | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        if max_time == "auto":
            bounded = kwargs.get("max_steps", -1) != -1 or kwargs.get("max_epochs") is not None
            max_time = None if bounded else LENGTH
        super().__init__(precision=precision, max_time=max_time, **kwargs)  # type: ignore[arg-type]
        if isinstance(self.strategy, ModelParallelStrategy):
            sizes = self.strategy._data_parallel_size, self.strategy._tensor_parallel_size
            if sizes == ("auto", 1):  # Lightning's is one for each machine, whatever is in it
                self.strategy._data_parallel_size = self.world_size
            # spread weights are put together in what mode they are first used in, and a flow's likelihood takes
            # gradients through them
            for loop in (self.validate_loop, self.test_loop, self.predict_loop):
                loop.inference_mode = False
        atexit.register(leave_group)

    def __setstate__(self, state: dict[str, Any]) -> None:  # in a process that a strategy has spawned
        self.__dict__.update(state)
        atexit.register(leave_group)


def leave_group() -> None:
    """Ends the threads that served this process in its group, if it is in one.

    gloo's let go of the last tensors under Python's lock. One that comes to it when the interpreter is gone already
    aborts the process (SIGABRT, "terminate called without an active exception"), and the strategy then ends all
    others: a training that was complete would fail now and then. Lightning leaves the group for NCCL alone.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        gc.collect()  # whatever holds it in a cycle
