"""Numbers and paths as a file states them: a checkpoint that holds NumPy's own is not read without unpickling."""

import os
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """A number of NumPy's as Python's own, a path as text; anything else as it is."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def make_plain(values: Any) -> None:
    """Makes what is in dictionaries and lists plain, at any depth, where it is."""
    for key, value in list(values.items() if isinstance(values, dict) else enumerate(values)):
        if isinstance(value, tuple) and type(value) is tuple:
            value = list(value)
            make_plain(value)
            value = tuple(value)
        elif isinstance(value, dict | list):
            make_plain(value)
        values[key] = plain(value)
