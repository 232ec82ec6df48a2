"""Columns in standard units inside a model, in the user's own outside.

The columns of a table may be years, euros and shares of one. Networks, their learning rates and the noise of a
diffusion are made for numbers about 0 whose standard deviation is about 1, so a model sees, in place of a row x,

    y = (x − μ)/σ,    with the mean μ and the standard deviation σ of each column of the training data,

and answers in the units of x: samples, completions and interpolations are x = μ + σ y, and a density is that of the
raw row,

    log p(x) = log p(y) − Σ_d log σ_d.

Where a family scales its data for its networks it calls `standardised`, and on the way back `in_own_units`; in all
other places data are the user's. μ = 0 and σ = 1, as a model begins, change nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genzoo.zoo.likelihoods import Output
from genzoo.zoo.modality import Modality
from genzoo.zoo.randomness import Generator


class StandardisingMixin(nn.Module):
    """Gives a module of points (D,) the mean and the standard deviation of each column, in buffers.

    They are in every checkpoint and entry, so that a model that is loaded needs no datamodule to answer in the user's
    units. Weights from before there were any load as they did, with μ = 0 and σ = 1. Of other data than points all of
    this is the identity: their scale is known beforehand.
    """

    #: (D,) each, of points alone
    column_mean: Tensor
    column_std: Tensor

    # from ZooModule
    modality: Modality
    shape: tuple[int, ...]

    def begin_in_own_units(self) -> None:
        """For the constructor: μ = 0, σ = 1."""
        if self.modality == "points":
            for name, value in (("column_mean", 0.0), ("column_std", 1.0)):
                buffer = torch.full(self.shape, value, dtype=torch.float32)
                self.register_later_buffer(name, buffer)  # type: ignore[operator]

    def standardise(self, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]) -> None:
        """States the columns' means and standard deviations, before the model is trained.

        A training does so by itself with those of a datamodule that states its `standardisation`; a model that has
        some, stated or loaded, keeps them.

        Args:
            mean: (D,), in the data's units.
            std: (D,), in the data's units, above 0.

        Raises:
            ValueError: if the data are no points, or there is not one finite number for each column.
        """
        name = type(self).__name__
        if self.modality != "points":
            raise ValueError(
                f"standardise: the columns of points (D,) have units, but this {name} is for {self.modality}."
            )
        for what, values, buffer in (("mean", mean, self.column_mean), ("std", std, self.column_std)):
            given = torch.as_tensor(values, dtype=torch.float64).to(buffer.dtype)
            good = given.shape == buffer.shape and bool(given.isfinite().all())
            if not good or (what == "std" and not bool((given > 0).all())):
                positive = " above 0" if what == "std" else ""
                raise ValueError(
                    f"standardise: {what} is a finite number{positive} for each of the {len(buffer)} columns, but was"
                    f" given {tuple(given.shape)}, {given.tolist()[:8] if given.ndim == 1 else values}."
                )
        with torch.inference_mode(False), torch.no_grad():
            self.column_mean.copy_(torch.as_tensor(mean))
            self.column_std.copy_(torch.as_tensor(std))

    @property
    def units_stated(self) -> dict[str, list[float]]:
        """Of points what they are standardised by, as files state it: whoever has a network without us needs both."""
        if self.modality != "points":
            return {}
        return {"column_mean": self.column_mean.tolist(), "column_std": self.column_std.tolist()}

    @property
    def is_standardising(self) -> bool:
        """Whether the columns' means and standard deviations have been stated."""
        return self.modality == "points" and bool(((self.column_mean != 0) | (self.column_std != 1)).any())

    def standardised(self, x: Tensor) -> Tensor:
        """(x − μ)/σ of data (..., D)."""
        return (x - self.column_mean) / self.column_std if self.modality == "points" else x

    def in_own_units(self, y: Tensor) -> Tensor:
        """μ + σ y: the inverse of `standardised`."""
        return self.column_mean + self.column_std * y if self.modality == "points" else y

    @property
    def units(self) -> Tensor:
        """(D,), σ of each column; 1 of data that have no columns."""
        return self.column_std if self.modality == "points" else torch.ones(())

    @property
    def log_volume(self) -> Tensor:
        """Σ_d ln σ_d: by how much the log-density of x is less than that of y."""
        return self.units.log().sum()

    def output_in_own_units(self, output: Output) -> Output:
        """The distribution of x, from that of y."""
        return InOwnUnits(output, self.column_mean, self.column_std) if self.modality == "points" else output


class InOwnUnits(Output):
    """x = μ + σ y for a y of another distribution, (..., D).

    Args:
        standard: the distribution of y.
        mean: μ, (D,).
        std: σ, (D,).
    """

    def __init__(self, standard: Output, mean: Tensor, std: Tensor) -> None:
        self.standard, self.location, self.scale = standard, mean, std
        self.event_dims = standard.event_dims

    @property
    def mean(self) -> Tensor:
        """μ + σ E y."""
        return self.location + self.scale * self.standard.mean

    def log_prob_per_dim(self, x: Tensor) -> Tensor:
        """log p(y) − log σ of each column."""
        return self.standard.log_prob_per_dim((x - self.location) / self.scale) - self.scale.log()

    def sample(self, generator: Generator | None = None, *, batch_dim: int = 0) -> Tensor:
        """μ + σ y."""
        return self.location + self.scale * self.standard.sample(generator, batch_dim=batch_dim)
