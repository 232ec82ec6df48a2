"""In which range the values of images are that come from anybody's data or model.

Images of ours are in [0, 1]. Those of others may be in [−1, 1], where a tanh ends, or bytes, or standardised; so
whoever draws or compares images of others finds the range out, and brings them to [0, 1].
"""

import torch
from torch import Tensor

ValueRange = tuple[float, float]
UNIT: ValueRange = (0.0, 1.0)
SYMMETRIC: ValueRange = (-1.0, 1.0)
BYTES: ValueRange = (0.0, 255.0)


def checked_range(value_range: ValueRange | None, name: str) -> ValueRange | None:
    """The range as two floats, if one is stated.

    Raises:
        ValueError: if it is no pair of numbers, the lower one first.
    """
    if value_range is None:
        return None
    if len(value_range) != 2 or not float("-inf") < value_range[0] < value_range[1] < float("inf"):
        raise ValueError(f"{name}: value_range={value_range}: give the darkest and the brightest value, (-1, 1).")
    return float(value_range[0]), float(value_range[1])


def range_of(x: Tensor) -> ValueRange | None:
    """The range of real images, (B, C, H, W): [0, 1], [−1, 1], [0, 255], or what they span; None of other data."""
    if x.ndim != 4 or not len(x) or x.dtype == torch.int64:
        return None
    low, high = (float(value) for value in x.detach().aminmax())
    for known in (UNIT, SYMMETRIC, BYTES):
        if known[0] <= low and high <= known[1] and (x.dtype != torch.uint8 or known == BYTES):
            return known
    return low, high


def plain_range(x: Tensor) -> ValueRange | None:
    """The range that samples, (B, C, H, W), are plainly in; None where that cannot be told.

    A network without bounds strays a little from the range of its data, and far at first, so [−1, 1] is told by what
    a tanh gives: a twentieth of the values below −¼, some below −½, none outside.
    """
    x = x.detach().cpu()  # some devices have no double precision
    found = range_of(x)
    if found == SYMMETRIC:
        return found if float(x.min()) < -0.5 and float((x < -0.25).double().mean()) >= 0.05 else None
    if found == BYTES:
        return found if float(x.double().mean()) > 2 else None
    return found if found == UNIT else None


def contradicts(samples: Tensor, value_range: ValueRange) -> bool:
    """Whether samples are plainly in another range than the data."""
    plain = plain_range(samples)
    if plain is None or value_range in (UNIT, SYMMETRIC, BYTES):
        return plain not in (None, value_range)
    return value_range[0] < -0.25 and plain != SYMMETRIC  # of standardised data some are negative


def to_unit(x: Tensor, value_range: ValueRange | None) -> Tensor:
    """Images of that range in [0, 1]; what has none, as it is."""
    if value_range is None or (value_range == UNIT and x.is_floating_point()):
        return x
    low, high = value_range
    return ((x if x.is_floating_point() else x.float()) - low) / ((high - low) or 1.0)  # of images that are all one


def in_words(value_range: ValueRange) -> str:
    """As it is printed: [−1, 1]."""
    return "[{:.3g}, {:.3g}]".format(*value_range).replace("-", "−")
