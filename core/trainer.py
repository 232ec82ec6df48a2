"""Lightning's Trainer, of whose arguments a recipe may leave some open."""

from datetime import timedelta
from typing import Any, Literal

from lightning.fabric.connector import _PRECISION_INPUT
from lightning.pytorch import Trainer

#: how long a training is of which nothing else is said
LENGTH = timedelta(minutes=15)


class AutoTrainer(Trainer):
    """Lightning's, but for what a recipe may leave open.

    Args:
        precision: "auto" is settled (`genzoo.precision`) before a Trainer is built.
        max_time: "auto" is 15 minutes if neither max_steps nor max_epochs is given, and no limit if one of them is.
        kwargs: as Lightning's.
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
