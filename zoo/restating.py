"""What a resumed run states of its optimisers and schedules otherwise than the run before.

The recipe and the command line win over the arguments that a checkpoint carries. But a checkpoint holds the state of
optimisers and schedules, too, in which what was stated lies beside what training has made of it: a learning rate that
a plateau has lowered is not to jump back because somebody resumes. So what two runs state is compared, and what is
stated as before goes on as it was.
"""

import inspect
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from genzoo.zoo.optimizers import another

#: optimisers that take up each other's state
KIN = {"AdamW": "Adam"}


class Changed(NamedTuple):
    """What a run that goes on states otherwise than the one before."""

    arguments: bool  # of an optimiser
    schedule: bool


def changed(checkpoint: dict[str, Any], stated: Mapping[str, Any]) -> Changed:
    """Compares what two runs state of their optimisers and schedules; another schedule's state is left out.

    Args:
        checkpoint: as Lightning is about to restore it.
        stated: the module's hyperparameters; what they cannot state, such as a function, is taken for the same.

    Raises:
        ValueError: if the checkpoint is of another optimiser.
    """
    then, now = (_parts(hyper) for hyper in (checkpoint.get("hyper_parameters", {}), stated))
    both = [(name, then[name], now[name]) for name in then.keys() & now.keys()]
    for name, before, after in both:
        theirs, own = _name(before), _name(after)
        if name.endswith("optimizer") and theirs and own and KIN.get(theirs, theirs) != KIN.get(own, own):
            raise ValueError(another(own, theirs))
    others = {name for name, before, after in both if not _same(before, after)}
    found = Changed(*(any(name.endswith(kind) for name in others) for kind in ("optimizer", "lr_scheduler")))
    if found.schedule:
        rank_zero_info("lr_scheduler is another than the checkpoint's: training goes on at its step of this one.")
        checkpoint["lr_schedulers"] = []
    return found


def _parts(stated: Any, place: str = "") -> dict[str, Any]:
    """What hyperparameters state of optimisers and schedules, at any depth, by where they do."""
    found: dict[str, Any] = {}
    for name, value in stated.items() if isinstance(stated, Mapping) else ():
        if name.endswith(("optimizer", "lr_scheduler")):
            found[f"{place}{name}"] = value
        else:
            found |= _parts(value, f"{place}{name}.")
    return found


def _name(stated: Any) -> str | None:
    """Of a class, without its path: there are several."""
    path = stated.get("class_path") if isinstance(stated, Mapping) else None
    return None if path is None else str(path).rpartition(".")[2]


def _same(then: Any, now: Any) -> bool:
    """Whether two statements come to the same: one may leave out what the other says though it is the default."""
    if _name(now) is None or _name(then) is None:
        if isinstance(then, Mapping) and isinstance(now, Mapping):
            return then.keys() == now.keys() and all(_same(then[name], now[name]) for name in now)
        plain = [list(one) if isinstance(one, tuple) else one for one in (then, now)]
        return bool(plain[0] == plain[1])
    if _name(now) != _name(then):
        return False
    defaults: dict[str, Any] = {}
    own = resolve_name(now["class_path"])  # the user's, not the file's
    for cls in reversed(getattr(own, "__mro__", ())):  # some hand on the rest
        parameters = inspect.signature(cls.__init__).parameters
        defaults |= {name: parameter.default for name, parameter in parameters.items()}
    old, new = ({**defaults, **(one.get("init_args") or {})} for one in (then, now))
    return all(_same(old.get(name), new.get(name)) for name in old.keys() | new.keys())
