"""Autoencoders: a code that each datum passes through (Hinton & Salakhutdinov 2006; Vincent et al. 2008).

    Autoencoder             minimise  −log p(x | z = f(x))
    DenoisingAutoencoder    minimise  −log p(x | z = f(x̃)),  x̃ = x corrupted

The loss is in nats, but it is no bound on −log p(x): nothing charges for the code. So an autoencoder has no
`log_prob`. Nor can it be sampled, until a density has been fitted to the codes of the data (Ghosh et al. 2020): then
z is drawn from that density, here a mixture of Gaussians, and x from p(x | z).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from genzoo.zoo.checks import check_count
from genzoo.zoo.latent.encoder_decoder import EncoderDecoderMixin, Factor, Network
from genzoo.zoo.likelihoods import Likelihood
from genzoo.zoo.mixins import CompletionMixin
from genzoo.zoo.modality import to_grid
from genzoo.zoo.precision import MeasuredBuffers, full_precision
from genzoo.zoo.processes import world_size
from genzoo.zoo.randomness import Generator, normal, uniform
from genzoo.zoo.settling import SettlingModule, evaluating

ENCODED = 2**20  # numbers of the data whose codes are made together: what a network makes of them takes far more room


@dataclass(frozen=True)
class Delta:
    """The distribution that is certain of one code: `mean`, (B, d)."""

    mean: Tensor


class Autoencoder(CompletionMixin, EncoderDecoderMixin, SettlingModule):
    """An autoencoder with a bottleneck.

    Capabilities: `encode`, `decode`, `reconstruct`, `interpolate`, `traverse`, `complete` (a heuristic), and
    `anomaly_score`; `sample` as soon as, and only while, a density of the codes is fitted.

    Args:
        shape, levels, optimizer, lr_scheduler: as in `ZooModule`.
        latent_dim: d, the size of the code.
        network, factor, width, depth, decoder, likelihood: as in `VAE`.
        encoder: a module of your own, (B, *shape) in [−1, 1] (if continuous: as they are, points standardised)
            to (B, d).
        density_components: Gaussians in the mixture that is fitted to the codes for each validation and the end of a
            training (see `SettlingModule`); 0 for none. `fit_density` does it by hand.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    #: `sample(num_samples, *, labels=None, generator=None)` as in `Samples`: z from the density of the codes, x from
    #: p(x | z). An attribute of the instance, for it is there only while a density is fitted.
    sample: Callable[..., Tensor]

    #: what is added to the loss of a training step, such as a callback's `FeatureLoss`: see `TakesAddedLoss`
    added_loss: Callable[[Tensor, Tensor], Tensor] | None = None

    #: at most so many times is a completion reconstructed and what is known pasted back
    completion_sweeps = 64
    #: how many of the data last trained on the density is fitted to
    density_data = 8192

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        latent_dim: int = 16,
        network: Network | None = None,
        factor: Factor | None = None,
        width: int | None = None,
        depth: int | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: Likelihood | None = None,
        density_components: int = 0,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if density_components < 0:
            raise ValueError(f"density_components={density_components}: give the number of Gaussians, 0 for none.")
        self.build_networks(
            1,
            latent_dim=latent_dim,
            factor=factor,
            network=network,
            width=width,
            depth=depth,
            encoder=encoder,
            decoder=decoder,
            likelihood=likelihood,
        )
        #: whether a training gives it `sample`
        self.will_sample = density_components > 0
        self.density = Mixture(density_components, self.latent_dim) if density_components else None
        self._seen: list[Tensor] = []  # the batches last trained on, by the codes of their levels
        self._since = {}
        self.register_load_state_dict_post_hook(Autoencoder._offer_sampling)

    # ---- the model

    def encode(self, x: Tensor) -> Delta:
        """The code of x, with certainty: `.mean` is (B, latent_dim).

        Args:
            x: (B, *shape), in the data's range, though images need not lie on their grid.
        """
        return Delta(self.features(self.check(x, on_grid=False)))

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """−log p(x | z = f(x)), nats, and what is added to it."""
        return self.losses(x, x)

    def losses(self, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """`reconstruction_error` and `added_loss`: "loss" is their sum."""
        output = self.decoded(self.features(seen))
        error = -output.log_prob(x)
        if self.added_loss is None:
            return {"loss": error}
        added = self.added_loss(x, output.mean)
        return {"loss": error + added, "reconstruction_error": error, "added_loss": added}

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """The loss: how many nats the reconstruction leaves open. No likelihood of x."""
        return {"loss": self.reconstruction_error(x, x)}

    def reconstruction_error(self, x: Tensor, seen: Tensor) -> Tensor:
        """−log p(x | z = f(seen)): (B,), nats."""
        return -self.decoded(self.features(seen)).log_prob(x)

    # ---- capabilities

    @torch.no_grad()
    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """The reconstruction error −log p(x | z = f(x)).

        Args:
            x: (B, *shape).
            scorer: "reconstruction", the only one and the default.

        Returns:
            (B,), nats, higher = odder.
        """
        if scorer not in (None, "reconstruction"):
            raise ValueError(f"scorer={scorer!r}: an autoencoder knows 'reconstruction'.")
        x = self.check(x)
        return self.reconstruction_error(x, x)

    def fill_in(self, x: Tensor, known: Tensor, num_samples: int, generator: Generator | None) -> Tensor:
        """Reconstruct, paste what is known, and again, until it settles: from noise to a fixed point.

        A heuristic: the result is consistent with the code of a datum, but no draw from p(x_unknown | x_known).
        Several completions differ in the noise they began with. Discrete data are rounded to their levels.
        """
        mask = known.expand(num_samples, *x.shape).flatten(0, 1)
        target = x.expand(num_samples, *x.shape).flatten(0, 1)
        draw = normal if self.levels is None else uniform
        noise = self.in_own_units(draw(target.shape, like=target, generator=generator))
        state = torch.where(mask, target, noise)
        keep = mask
        for _ in range(self.completion_sweeps):
            restored = self.decoded(self.features(state)).mean
            before, state = state, torch.where(keep, state, restored)
            change = (self.standardised(state) - self.standardised(before)).abs().flatten(1).amax(1)
            settled = (change < 1e-4).view(-1, *(1 for _ in self.shape))
            if bool(settled.all()):
                break
            keep = keep | settled  # a datum that has settled does not wait for the others
        if self.levels is not None:
            state = to_grid(state, self.levels)
        return state.unflatten(0, (num_samples, len(x)))

    # ---- sampling, once a density of the codes is known

    @torch.no_grad()
    def fit_density(self, x: Tensor, num_components: int | None = None, *, seed: int = 0) -> None:
        """Fits a mixture of Gaussians with full covariances to the codes of x; from then on there is `sample`.

        Args:
            x: (N, *shape), data to take the codes of, at least two.
            num_components: how many Gaussians; None means `density_components` as the model was built, or 10.
            seed: of the fit's beginning.

        Raises:
            ValueError: for fewer than two data or no components.
        """
        if num_components is None:
            num_components = len(self.density.weights) if self.density else 10
        check_count("num_components", num_components)
        check_count("seed", seed, least=0)
        self._fit_density([x], int(num_components), seed)

    def _fit_density(self, parts: Iterable[Tensor], num_components: int, seed: int = 0) -> None:
        """Of data in parts, (N, *shape) each, of which few are encoded at a time."""
        few = max(1, ENCODED // self.num_dims)
        with evaluating(self):
            codes = torch.cat([self.encode(x).mean for part in parts for x in part.split(few)])
        with torch.inference_mode(False), torch.no_grad():  # or it could not be fitted, nor loaded, again elsewhere
            codes, density = codes.clone(), self.density
            if density is None or num_components != len(density.weights):
                density = Mixture(num_components, self.latent_dim).to(codes)
            density.fit(codes, seed)
        self.density = density
        self.hparams["density_components"] = num_components  # what is published or saved builds it again
        self._offer_sampling()

    def _offer_sampling(self, *_: Any) -> None:
        """A capability that a model lacks is a method that it lacks; asked whenever the density may have changed."""
        if self.density is not None and self.density.fitted:
            self.sample = self._sample
        elif hasattr(self, "sample"):
            del self.sample

    def _sample(
        self, num_samples: int, *, labels: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """z from the density of the codes, x from p(x | z): (num_samples, *shape), in the data's range, on its grid.

        Raises:
            ValueError: if labels are given, this model being unconditional, or num_samples is no count.
        """
        check_count("num_samples", num_samples)
        if labels is not None:
            raise ValueError("This autoencoder is unconditional: it was not trained on labels.")
        assert self.density is not None
        with torch.no_grad():
            return self.decoded(self.density.sample(num_samples, generator)).sample(generator)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Remembers the data, if a density is wanted: a checkpoint that is written after this batch has them."""
        if self.density is not None:
            x, _ = self.unpack(batch)
            self._seen.append(self.as_seen(x))
            self.count_seen(len(x))
            while sum(map(len, self._seen)) - len(self._seen[0]) >= self.density_data:
                del self._seen[0]

    @property
    def settles_after(self) -> int:  # type: ignore[override]
        """Eight times as many data as are encoded for it."""
        return 8 * self.density_data

    def fit_to_seen(self) -> None:
        """See `SettlingModule`: the density of the codes that the weights give."""
        if self.density is not None and sum(map(len, self._seen)) > 1:
            with torch.no_grad():
                self._fit_density(map(self.from_seen, self._seen), len(self.density.weights))
            if world_size() > 1:
                for buffer in self.density.buffers():
                    torch.distributed.broadcast(buffer, src=0)


class DenoisingAutoencoder(Autoencoder):
    """An autoencoder that is shown corrupted data and has to restore them.

    Where the corruption is Gaussian noise of scale σ, the best reconstruction is E[x | x̃], and `score` reads off it
    the gradient of the log-density of noisy data (Alain & Bengio 2014): the seed of diffusion models.

    Args:
        shape, levels: as in `ZooModule`.
        corruption: `GaussianNoise` or `Masking`; None is GaussianNoise().
        arguments: as in `Autoencoder`.

    Raises:
        ValueError: as `Autoencoder`.
    """

    def __init__(
        self, shape: Sequence[int], levels: int | None, *, corruption: "Corruption | None" = None, **arguments: Any
    ) -> None:
        super().__init__(shape, levels, **arguments)
        self.corruption = corruption or GaussianNoise()

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """−log p(x | z = f(x̃)) with one draw of the corruption, nats."""
        return self.losses(x, self.corrupted(x))

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """The loss, and what it would be without corruption."""
        noisy = self.corrupted(x, generator)
        return {"loss": self.reconstruction_error(x, noisy), "clean_loss": self.reconstruction_error(x, x)}

    def corrupted(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """x̃ ~ C(x̃ | x); the columns of points are corrupted in their standard units."""
        return self.in_own_units(self.corruption.corrupt(self.standardised(x), generator))

    @torch.no_grad()
    def score(self, x: Tensor) -> Tensor:
        """(r(x) − x)/σ² ≈ ∇_x log p_σ(x), the score of data with noise (Alain & Bengio 2014, theorem 1).

        Of points, each column's σ is in units of the standard deviation by which it is standardised.

        Args:
            x: (B, *shape), noisy data, in the data's units but not on their grid.

        Returns:
            (B, *shape), nats for each unit of the data.

        Raises:
            ValueError: if the corruption is no Gaussian noise.
        """
        if not isinstance(self.corruption, GaussianNoise):
            raise ValueError(f"score: the corruption is {self.corruption}, but only GaussianNoise gives a score.")
        restored = self.decoded(self.features(self.check(x, in_range=False))).mean
        difference = self.standardised(restored) - self.standardised(x)
        return difference / self.corruption.scale**2 / self.units


# -------------------------------------------------------------------------------------------------- the corruptions


class Corruption(ABC):
    """How data are spoilt for a `DenoisingAutoencoder`."""

    @abstractmethod
    def corrupt(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """x̃ ~ C(x̃ | x), (B, *shape); it need not lie on the data's grid, nor in their range."""


@dataclass(frozen=True)
class GaussianNoise(Corruption):
    """x̃ = x + σ ε.

    Args:
        scale: σ, in the data's units; of points that are standardised, in standard deviations of each column.
    """

    scale: float = 0.3

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale={self.scale}: the standard deviation of the noise must be positive.")

    def corrupt(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """See `Corruption`."""
        return x + self.scale * normal(x.shape, like=x, generator=generator)


@dataclass(frozen=True)
class Masking(Corruption):
    """Each dimension is set to zero with some probability, independently ("masking noise", Vincent et al. 2008).

    Args:
        probability: that a dimension is lost.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            raise ValueError(f"probability={self.probability}: the share of lost dimensions lies between 0 and 1.")

    def corrupt(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """See `Corruption`."""
        return x * (uniform(x.shape, like=x, generator=generator) >= self.probability)


# ------------------------------------------------------------------------------------------- the density of the codes


class Mixture(MeasuredBuffers):
    """Σ_m w_m N(μ_m, L_m L_mᵀ) over codes, kept in buffers, so that it is saved with the weights of the model.

    Args:
        num_components: M.
        dim: d.
    """

    weights: Tensor  # (M,); all zero until the mixture is fitted
    means: Tensor  # (M, d)
    factors: Tensor  # (M, d, d), the Cholesky factors L_m

    def __init__(self, num_components: int, dim: int) -> None:
        super().__init__()
        single = torch.float32
        self.register_buffer("weights", torch.zeros(num_components, dtype=single))
        self.register_buffer("means", torch.zeros(num_components, dim, dtype=single))
        self.register_buffer("factors", torch.zeros(num_components, dim, dim, dtype=single))

    @property
    def fitted(self) -> bool:
        """Whether there is a density."""
        return bool((self.weights > 0).any())

    def fit(self, codes: Tensor, seed: int) -> None:
        """By expectation-maximisation; where there are fewer codes than components, the rest keep the weight 0."""
        from sklearn.mixture import GaussianMixture

        if len(codes) < 2:
            raise ValueError(f"A density cannot be fitted to {len(codes)} codes: give more data.")
        points = codes.double().cpu().numpy()
        used = min(len(self.weights), len(points))
        floor = 1e-6 + 1e-3 * float(points.var(0).mean())  # an unused dimension of the code has no variance
        mixture = GaussianMixture(used, reg_covar=floor, random_state=seed).fit(points)
        self.weights.zero_()
        self.weights[:used] = torch.from_numpy(mixture.weights_).to(self.weights)
        self.means[:used] = torch.from_numpy(mixture.means_).to(self.means)
        covariances = torch.from_numpy(mixture.covariances_)
        self.factors[:used] = torch.linalg.cholesky(covariances).to(self.factors)

    def sample(self, num_samples: int, generator: Generator | None = None) -> Tensor:
        """(num_samples, d)."""
        edges = self.weights.float().cumsum(0)
        places = edges[-1] * uniform((num_samples,), like=edges, generator=generator)
        component = torch.searchsorted(edges, places, right=True).clamp_max(len(edges) - 1)
        means, factors = full_precision(self.means), full_precision(self.factors)
        noise = normal((num_samples, means.shape[1]), like=means, generator=generator)
        # no product of matrices, which autocast would round
        return means[component] + (factors[component] * noise[:, None]).sum(-1)
