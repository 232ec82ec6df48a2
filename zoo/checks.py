"""Whether what a call is given is what it can mean: each in one line that names the argument."""

import math
from numbers import Integral, Real

from torch import nn

#: more than that of anything is a mistake, and would end in an error of memory
MOST = 2**31 - 1


def check_count(name: str, count: int, least: int = 1, most: int = MOST) -> None:
    """Raises ValueError unless it is a whole number from `least` to `most`; True and 2.0 are none."""
    if not isinstance(count, Integral) or isinstance(count, bool) or not least <= count <= most:
        too_many = isinstance(count, int) and count > most
        bound = f"from {least} to {most}" if too_many or most < MOST else f"of at least {least}"
        raise ValueError(f"{name}={_short(count)}: give a whole number {bound}.")


def check_number(name: str, number: float, expected: str = "a finite number") -> None:
    """Raises ValueError unless it is a real number and finite."""
    if not isinstance(number, Real) or isinstance(number, bool) or not math.isfinite(number):
        raise ValueError(f"{name}={_short(number)}: give {expected}.")


def check_networks(**networks: object) -> None:
    """Raises TypeError unless each is a module of the user's own, or None for one of ours."""
    for name, network in networks.items():
        if network is not None and not isinstance(network, nn.Module):
            raise TypeError(f"{name}={_short(network)}: give a torch.nn.Module, or leave it out for ours.")


def _short(given: object) -> str:
    """What was given, in a line."""
    said = " ".join(repr(given).split())
    return said if len(said) <= 60 else f"{said[:60]}…"
