"""How wrong a denoiser is at each step of a reverse chain, from which follow the chain's best variances.

The errors are stated as the ρ of `ReverseChain`: beside those of the best denoiser of N(0, I), which fall by many
orders of magnitude on the way from noise to data, as ρ does not.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from genzoo.zoo.checks import check_count
from genzoo.zoo.diffusion.base import Diffusion
from genzoo.zoo.diffusion.likelihood import ReverseChain
from genzoo.zoo.diffusion.solvers import Denoiser, Variance
from genzoo.zoo.likelihoods import Output, full_precision
from genzoo.zoo.modality import Modality
from genzoo.zoo.processes import rank, total, world_size
from genzoo.zoo.settling import SettlingModule, evaluating


class FittedVariances(SettlingModule, Diffusion):
    """A diffusion model whose reverse chain has the best variances, in a Lightning run by itself.

    They are fitted when `SettlingModule` says, to some of the data that were last trained on, with random numbers
    apart from the run's. They are a buffer, so that a checkpoint has those with which it was validated.
    """

    #: they are fitted to the average itself, where there is one
    not_averaged = frozenset({"log_errors"})

    #: data that a run fits them to, in each process
    variance_data = 512
    #: about how many looks at single steps it takes for that: a point, with its few dimensions, says and costs less
    variance_looks: Mapping[Modality, int] = {
        "image": 2048,
        "series": 2048,
        "points": 32_768,
    }

    #: ln ρ of each step; a logarithm can be kept in half precision, however good or bad the network is
    log_errors: Tensor

    def choose_variance(self, variance: Variance | Literal["optimal"], steps: int) -> None:
        """For a constructor: which variances the chain of so many steps has; "optimal" ones begin as "large".

        Raises:
            ValueError: if there are no such variances, or fewer than two steps.
        """
        if steps < 2:
            raise ValueError(
                f"A reverse chain has at least two steps, but {self.schedule} leaves {steps}: give it more."
            )
        if variance not in ("optimal", "small", "large"):
            raise ValueError(f"variance={variance!r}: choose 'optimal', 'small' or 'large'.")
        self.variance = variance
        self.register_later_buffer("log_errors", torch.zeros(steps, dtype=torch.float32))
        self._seen: list[tuple[Tensor, Tensor | None]] = []  # the batches last trained on, by the codes of levels
        self._since = {}

    @abstractmethod
    def chain(self, variance: Variance | None = None) -> ReverseChain:
        """The reverse chain with the variances that it has now, or with given ones."""

    @abstractmethod
    def decoder(self, mean: Tensor, std: float) -> Output:
        """p(x | x_t1), the chain's last step, from its mean and standard deviation as the model sees data.

        Of points x is here the standardised one.
        """

    @torch.no_grad()
    def fit_variances(
        self, batches: Iterable[Any], *, num_particles: int = 16, generator: torch.Generator | None = None
    ) -> None:
        """Makes the variances the best for this network and for data like the given ones.

        Collective, where there are several processes: each of them gives some of the data.

        Args:
            batches: of training data, x or (x, y), as of a dataloader. A few hundred data do.
            num_particles: how many steps of the chain are looked at for each datum: some thousand altogether do.
            generator: of the draws; None takes the same ones every time, apart from all others.

        Raises:
            ValueError: if this model's variances are not "optimal", there are no data, or they are not the model's.
        """
        if self.variance != "optimal":
            raise ValueError(f"variance={self.variance!r}: only variance='optimal' is fitted; build the model so.")
        check_count("num_particles", num_particles)
        if not isinstance(batches, Iterable):
            raise TypeError(f"batches of data are to be iterated over, but was given {type(batches).__name__}.")
        if generator is None:
            generator = torch.Generator().manual_seed(rank())
        elif not isinstance(generator, torch.Generator):
            raise TypeError(f"generator is a torch.Generator or None, but was given {type(generator).__name__}.")
        with evaluating(self):
            errors = fitted_errors(
                self.chain("large"), self._denoised(batches), self.decoder, num_particles, generator
            )
        with torch.inference_mode(False):
            self.log_errors.copy_(errors.log())

    def _denoised(self, batches: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor, Denoiser]]:
        """Of each batch the data, what the model makes of them, and the denoiser given their labels."""
        for batch in batches:
            x, labels = self.unpack(batch)
            x, given = self.check(x.to(self.like.device)), None
            if self.num_classes is not None:
                given = self.checked_labels(labels, len(x))
            yield self.standardised(full_precision(x)), self.to_model(x), self.denoiser(given, clip=True)

    # ---- in a run

    @property
    def settles_after(self) -> int:  # type: ignore[override]
        """Eight times as many data as it looks at; a step takes three times as long as a look at each of its data."""
        return 8 * self.variance_looks[self.modality]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Remembers the data: a checkpoint that is written after this batch has them."""
        if self.variance == "optimal":
            x, labels = self.unpack(batch)
            most = self.variance_data
            kept = None if labels is None or self.num_classes is None else labels[:most].clone()
            self._seen.append((self.as_seen(x[:most]), kept))
            self.count_seen(len(x))
            while sum(len(x) for x, _ in self._seen[1:]) >= most:
                del self._seen[0]

    def fit_to_seen(self) -> None:
        """See `SettlingModule`."""
        seen = [(self.from_seen(x), labels) for x, labels in self._seen]
        num_particles = math.ceil(self.variance_looks[self.modality] / sum(len(x) for x, _ in seen))
        with self.trainer.precision_plugin.val_step_context():
            self.fit_variances(seen, num_particles=num_particles)


# ------------------------------------------------------------------------------------------------- the estimate

POOL = 16  # looks that an error is the mean of, at least: those at neighbouring steps among them, if need be
LAST_DATA, LAST_DIMS = 512, 100_000  # what the last variance is fitted to, at most
SMALLEST = 1e-8  # of ρ: a denoiser that is never wrong leaves no variance to divide by


def fitted_errors(
    chain: ReverseChain,
    data: Iterable[tuple[Tensor, Tensor, Denoiser]],
    decoder: Callable[[Tensor, float], Output],
    num_particles: int,
    generator: torch.Generator,
) -> Tensor:
    """ρ of each step: the mean squared error; of the last, what makes the data likeliest. Collective.

    Args:
        chain: whose steps they are; its own variances only decide how often each is looked at.
        data: batches: x as they are, x₀ as the model sees them, and D(x, t) for them.
        decoder: p(x | x_t1) from its mean and standard deviation, as the model sees data.
        num_particles: how many of the steps are looked at for each datum.
        generator: of the draws.

    Returns:
        (n,) float64.

    Raises:
        ValueError: if there are no data.
    """
    sums, counts = torch.zeros(2, len(chain.chances), dtype=torch.float64)
    ends: list[tuple[Tensor, Tensor, Tensor]] = []
    for x, x0, denoiser in data:
        if sum(len(end[0]) for end in ends) < LAST_DATA:
            ends.append((x, x0, chain.last_look(denoiser, x0, generator)))
        for k, x0_hat in chain.looks(denoiser, x0, num_particles, generator):
            error, k = (x0 - x0_hat).double().flatten(1).square().mean(1).cpu(), k.cpu()
            sums.index_add_(0, k, error / chain.white_error[k])
            counts.index_add_(0, k, torch.ones_like(error))
    if not ends:
        raise ValueError("The variances of a reverse chain are fitted to data, but `batches` held none.")
    sums, counts = _total(torch.stack([sums, counts]), ends[0][0].device)
    last = _last_error(ends, decoder, float(chain.white_error[-1]), generator)
    return torch.cat([_pooled(sums, counts), sums.new_tensor([last])]).clamp_min(SMALLEST)


def _pooled(sums: Tensor, counts: Tensor) -> Tensor:
    """Mean errors, each over the least window of steps around its own that holds `POOL` looks, or all there are."""
    sums, counts = (torch.cat([v.new_zeros(1), v.cumsum(0)]) for v in (sums, counts))
    begin = (counts[:-1] + counts[1:]) / 2 - POOL / 2
    begin = begin.clamp_max(counts[-1] - POOL).clamp_min(0)
    first = torch.searchsorted(counts, begin, right=True) - 1
    last = torch.searchsorted(counts, (begin + POOL).clamp_max(counts[-1]))
    return (sums[last] - sums[first]) / (counts[last] - counts[first])


def _last_error(
    ends: list[tuple[Tensor, Tensor, Tensor]],
    decoder: Callable[[Tensor, float], Output],
    white_error: float,
    generator: torch.Generator,
) -> float:
    """The mean squared error; or what is better than it for data with levels, where p is not quite normal."""
    from scipy.optimize import minimize_scalar

    x, x0, mean = (torch.cat(tensors).flatten() for tensors in zip(*ends, strict=True))
    some = torch.randperm(len(x), generator=generator, device=generator.device)[:LAST_DIMS].to(x.device)
    x, x0, mean = (v[some, None] for v in (x, x0, mean))

    def average(values: Tensor) -> float:
        both = torch.tensor([float(values.double().sum()), len(values)], dtype=torch.float64)
        summed, count = _total(both, values.device).tolist()
        return summed / count

    def nll(log_error: float) -> float:
        return -average(decoder(mean, math.exp(log_error / 2)).log_prob(x))

    guess = math.log(max(average((x0 - mean).double().square()), SMALLEST * white_error))
    found = minimize_scalar(nll, bounds=(guess - 5, guess + 5), method="bounded", options={"xatol": 1e-3})
    return math.exp(found.x) / white_error


def _total(values: Tensor, device: torch.device) -> Tensor:
    """The sum over all processes, by way of the device that they speak from."""
    return total(values.to(device)).cpu() if world_size() > 1 else values
