"""The capabilities that a family of generative model may have, as protocols.

`isinstance(model, HasLogProb)` tells whether a model (of ours or of anybody) can do a thing, and a capability that a
family does not have is a method that it does not have. (`mixins.py` completes a capability from its essential part;
`module.py` is the LightningModule that all families extend.)
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from genzoo.zoo.parts import Part
from genzoo.zoo.randomness import Generator

LogProbKind = Literal["exact", "lower_bound", "estimate"]


@runtime_checkable
class Samples(Protocol):
    """Draws new data."""

    def sample(self, num_samples: int, *, labels: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """(num_samples, *shape), in the data's range."""
        ...


@runtime_checkable
class HasLogProb(Protocol):
    """Evaluates the likelihood: exactly, by a lower bound, or by an estimate, as `log_prob_kind` says."""

    log_prob_kind: LogProbKind

    def log_prob(self, x: Tensor, *, num_particles: int = 1, generator: Generator | None = None) -> Tensor:
        """(B,), nats of the discrete datum (of the density, for continuous data), summed over the event."""
        ...

    def bits_per_dim(self, x: Tensor, *, num_particles: int = 1, generator: Generator | None = None) -> Tensor:
        """(B,), −log₂ p(x) / D; of discrete data only."""
        ...


@runtime_checkable
class ScoresAnomalies(Protocol):
    """Tells the odd from the usual."""

    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """(B,), higher = odder; raw, without threshold or normalisation; the same for the same x."""
        ...


@runtime_checkable
class Completes(Protocol):
    """Fills in what is missing."""

    def complete(
        self,
        x: Tensor,
        known: Tensor,
        *,
        num_samples: int = 1,
        labels: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """(num_samples, B, *shape); where `known` is True, x bit for bit."""
        ...


@runtime_checkable
class HasLatents(Protocol):
    """Maps data to codes and back."""

    def encode(self, x: Tensor) -> Any:
        """A distribution over codes with a `.mean` of shape (B, d)."""
        ...

    def decode(self, z: Tensor) -> Any:
        """A distribution over data with a `.mean` of shape (B, *shape)."""
        ...

    def reconstruct(self, x: Tensor) -> Tensor:
        """(B, *shape): the mean of decode(the mean of encode(x))."""
        ...

    def interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        """(steps, B, *shape): from the reconstruction of a to that of b."""
        ...

    def traverse(self, x: Tensor, dim: int, values: Sequence[float] | Tensor) -> Tensor:
        """(len(values), B, *shape): reconstructions of x with code dimension `dim` set to each value."""
        ...


@runtime_checkable
class HasCodes(Protocol):
    """Maps data to grids of discrete codes and back."""

    #: K, how many codes there are
    num_codes: int
    #: (h, w), the grid of the codes of a datum
    grid: tuple[int, int]

    def codes(self, x: Tensor) -> Tensor:
        """(B, h, w), int64 in [0, K)."""
        ...

    def decode_codes(self, codes: Tensor) -> Tensor:
        """(B, *shape): the expected data of codes."""
        ...

    def reconstruct(self, x: Tensor) -> Tensor:
        """(B, *shape): decode_codes(codes(x))."""
        ...


@runtime_checkable
class TakesAddedLoss(Protocol):
    """Is trained to reconstruct, and takes another opinion of its reconstructions into its loss."""

    #: from data and their expected reconstructions, (B, *shape) both, to (B,) in nats; None adds nothing
    added_loss: Callable[[Tensor, Tensor], Tensor] | None


@runtime_checkable
class Interpolates(Protocol):
    """Goes from one datum to another through what the model takes for data."""

    def interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        """(steps, B, *shape): from the model's rendering of a to that of b."""
        ...


@runtime_checkable
class Inverts(Protocol):
    """Finds the latent from which the model would generate a datum."""

    def invert(self, x: Tensor) -> Tensor:
        """(B, ...), the latent of each datum."""
        ...


@runtime_checkable
class SamplesInSteps(Protocol):
    """Shows how a sample comes about: pixel by pixel, or out of noise."""

    def sample_path(
        self, num_samples: int, *, num_frames: int, labels: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """(num_frames, num_samples, *shape); the last frame is what `sample` gives for the same generator.

        What is not yet drawn is 0 in the frames before.
        """
        ...


@runtime_checkable
class HasParts(Protocol):
    """Has networks that are of use without it: they can be exported."""

    def parts(self) -> dict[str, Part]:
        """Functions of the networks, by name."""
        ...
