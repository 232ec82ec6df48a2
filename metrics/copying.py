"""Are samples copies? Whether they lie nearer to the training data than data do that were never seen."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from genzoo.metrics.anomalies import auroc, auroc_error
from genzoo.metrics.base import check_two_sets

CHUNK = 1024  # rows whose distances are held at a time


class Memorisation(NamedTuple):
    """How often a sample lies nearer to the training data than an unseen datum does; see `memorisation`."""

    value: float
    error: float


def nearest(x: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of other points to each point.

    Args:
        x: (N, d).
        among: (M, d).

    Returns:
        (N,) Euclidean distances, and (N,) int64, the rows of `among`.

    Raises:
        ValueError: if either is empty or not finite, or the dimensions differ.
    """
    check_two_sets(x, among, 1)
    centre = among.double().mean(0)  # distances between centred vectors lose fewer digits
    x, among = x.double() - centre, among.double() - centre
    found = torch.cat([torch.cdist(rows, among).argmin(1) for rows in x.split(CHUNK)])
    # by the difference: to an equal point it is 0, which by the products that `cdist` may take it nearly is
    return (x - among[found]).norm(dim=1), found


def nearest_data(x: Tensor, batches: Iterable[Tensor]) -> Tensor:
    """The datum among many that each one is nearest to, by the Euclidean distance of the data themselves.

    Args:
        x: (N, *shape).
        batches: (B, *shape) each; one is held at a time.

    Returns:
        (N, *shape), rows of the batches.

    Raises:
        ValueError: if there are none.
    """
    least, found = torch.full((len(x),), torch.inf, dtype=torch.float64), torch.empty_like(x)
    for batch in batches:
        distance, row = nearest(x.flatten(1).double(), batch.flatten(1).double())
        nearer = distance < least
        least[nearer], found[nearer] = distance[nearer], batch[row[nearer]]
    if least.isinf().any():
        raise ValueError("There are no data to be near to: the loader gave no batch.")
    return found


def memorisation(training: Tensor, unseen: Tensor, samples: Tensor) -> Memorisation:
    """P(d(sample) < d(unseen)), with d the distance to the nearest training datum, a tie counting one half.

    The test of Meehan, Chaudhuri & Dasgupta (2020), whose U statistic it is, as a probability: ½ for a model that
    draws from the distribution, 1 for one that draws from its training data, and below ½ for one whose samples lie
    farther from the data than data do from each other.

    Args:
        training: (N, d), features of data that the model was trained on.
        unseen: (M, d), of data of the same kind that it was not trained on.
        samples: (K, d).

    Returns:
        The probability, and its standard deviation under new draws of the samples and the unseen data, DeLong's; the
        training data are as they are.

    Raises:
        ValueError: if any of them is empty or not finite, or the dimensions differ.
    """
    of_samples, of_unseen = nearest(samples, training)[0], nearest(unseen, training)[0]
    return Memorisation(auroc(of_samples, of_unseen), auroc_error(of_samples, of_unseen))
