"""Of many cases of one kind, `make test` has some; `make thorough` has the others."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

T = TypeVar("T")


def some(cases: Iterable[T], chosen: Callable[[T], bool]) -> list[ParameterSet]:
    """All the cases; marked those that are not chosen, as what they would find the chosen ones find."""
    return [pytest.param(case, marks=() if chosen(case) else pytest.mark.thorough) for case in cases]
