"""The variational autoencoder (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014).

A latent-variable model p(x) = ∫ p(x | z) p(z) dz with p(z) = N(0, I), learned with an approximate posterior
q(z | x) = N(μ(x), diag σ²(x)) by maximising the evidence lower bound

    ELBO(x) = E_{q(z|x)} [log p(x | z)] − KL(q(z | x) ‖ p(z)) = log p(x) − KL(q(z | x) ‖ p(z | x)) ≤ log p(x).

Both terms are in nats of the whole datum. KL has a closed form; the expectation is estimated with one reparameterised
draw z = μ + σ ε, ε ~ N(0, I). With K > 1 draws it is trained on the tighter bound of the importance-weighted
autoencoder (Burda, Grosse & Salakhutdinov 2016, eq. 8),

    L_K(x) = E log (1/K) Σ_k w_k,   w_k = p(x | z_k) p(z_k) / q(z_k | x),   ELBO = L_1 ≤ L_2 ≤ … ≤ log p(x).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from genzoo.zoo.checks import check_count
from genzoo.zoo.interface import LogProbKind
from genzoo.zoo.latent.encoder_decoder import EncoderDecoderMixin, Network
from genzoo.zoo.latent.estimators import (
    Estimator,
    check_estimator,
    importance_weighted_bound,
    leave_one_out,
    leave_one_out_bound,
    score_term,
)
from genzoo.zoo.latent.posterior import posterior_figures
from genzoo.zoo.likelihoods import Likelihood
from genzoo.zoo.mixins import CompletionMixin, LogProbMixin
from genzoo.zoo.module import ZooModule
from genzoo.zoo.processes import gather
from genzoo.zoo.randomness import Generator, PerDatum, normal, uniform


class VAE(LogProbMixin, CompletionMixin, EncoderDecoderMixin, ZooModule):
    """A variational autoencoder with one layer of Gaussian latents.

    Capabilities: `sample`, `log_prob` (a lower bound), `anomaly_score`, `complete`, `encode`, `decode`,
    `reconstruct`, `interpolate`, `traverse`.

    Args:
        shape, levels, optimizer, lr_scheduler: as in `ZooModule`.
        latent_dim: d, the number of latent variables.
        network: "mlp" (gated residual perceptrons, images or points) or "resnet" (residual convolutions, images);
            None takes "resnet" for images, "mlp" for points.
        width: hidden units of the perceptrons, or channels of the convolutions at full image size; None takes 512 or
            32.
        depth: residual blocks, for convolutions at each resolution; None takes 2 or 1.
        encoder: a module of your own, (B, *shape) in [−1, 1] (if continuous: as they are, points standardised)
            to (B, 2 d): μ and
            log σ.
        decoder: a module of your own, (B, d) to P numbers for each dimension of the datum, (B, P, *shape) up to
            reshaping, where P is the likelihood's `num_parameters(levels)`.
        likelihood: p(x | z); None takes `default_likelihood(levels)`.
        num_particles: K of the bound that is trained and validated. 1 is the VAE, more the importance-weighted
            autoencoder; the decoder's work grows with K, the encoder's does not.
        estimator: of the gradient with respect to the encoder: "pathwise", or "score_function" with a leave-one-out
            baseline, which needs no derivative of the decoder along z and scatters far more; see `estimators`.
        beta: weight of KL in the training loss (Higgins et al. 2017), of log p(z) − log q(z | x) where K > 1.
            Evaluation always uses 1.
        kl_warmup: training steps over which that weight rises linearly from 0 (Bowman et al. 2016).
        free_bits: nats for each latent dimension, averaged over the batch, below which its KL is not penalised
            (Kingma et al. 2016, eq. 15). Evaluation ignores it. Only where K = 1.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    log_prob_kind: LogProbKind = "lower_bound"

    #: sweeps of the completion's Markov chain; the first quarter is burn-in without rejection
    completion_sweeps = 64

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        latent_dim: int = 32,
        network: Network | None = None,
        width: int | None = None,
        depth: int | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: Likelihood | None = None,
        num_particles: int = 1,
        estimator: Estimator = "pathwise",
        beta: float = 1.0,
        kl_warmup: int = 0,
        free_bits: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(shape, levels, optimizer=optimizer, lr_scheduler=lr_scheduler)
        if beta < 0 or kl_warmup < 0 or free_bits < 0:
            raise ValueError(f"beta={beta}, kl_warmup={kl_warmup}, free_bits={free_bits}: none may be negative.")
        if num_particles < 1:
            raise ValueError(f"num_particles={num_particles}: the bound takes at least one draw.")
        if free_bits > 0 and num_particles > 1:
            raise ValueError(
                f"free_bits={free_bits} with num_particles={num_particles}: the importance-weighted bound has no KL"
                " term that could be left free. Choose one of the two."
            )
        check_estimator(estimator)
        self.num_particles, self.estimator = num_particles, estimator
        self.beta, self.kl_warmup, self.free_bits = beta, kl_warmup, free_bits
        self.build_networks(
            2 * latent_dim,  # μ and log σ
            latent_dim=latent_dim,
            network=network,
            width=width,
            depth=depth,
            encoder=encoder,
            decoder=decoder,
            likelihood=likelihood,
        )
        self._posteriors: list[Tensor] = []  # of the validation under way: (2, B, d), μ and σ

    # ---- the model

    def encode(self, x: Tensor) -> Independent:
        """q(z | x), a normal distribution with diagonal covariance over (B, latent_dim).

        Args:
            x: (B, *shape), in the data's range, though images need not lie on their grid.
        """
        return self.posterior(self.check(x, on_grid=False))

    def posterior(self, x: Tensor) -> Independent:
        """What `encode` gives, for x that was checked before, or is training data."""
        mean, log_scale = self.features(x).chunk(2, dim=1)
        return Independent(Normal(mean, log_scale.clamp(-7, 7).exp(), validate_args=False), 1, validate_args=False)

    def prior(self, like: Tensor) -> Independent:
        """p(z) = N(0, I)."""
        mean = torch.zeros(self.latent_dim, device=like.device, dtype=like.dtype)
        return Independent(Normal(mean, torch.ones_like(mean), validate_args=False), 1, validate_args=False)

    # ---- training

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) for z of shape (K, B, latent_dim): (K, B), nats; the decoder runs once, over all K·B codes."""
        repeated = x.expand(len(z), *x.shape).flatten(0, 1)
        return self.decoded(z.flatten(0, 1)).log_prob(repeated).view(len(z), -1)

    def draw(self, q: Independent, num_particles: int, generator: Generator | None = None) -> Tensor:
        """z_k = μ + σ ε_k, reparameterised: (K, B, latent_dim)."""
        size = (num_particles, *q.mean.shape)
        return q.mean + q.base_dist.scale * normal(size, like=q.mean, generator=generator, batch_dim=1)

    def kl(self, q: Independent) -> Tensor:
        """KL(q(z | x) ‖ p(z)) of each latent, (B, latent_dim), nats."""
        mean, scale = q.base_dist.loc, q.base_dist.scale
        return 0.5 * (mean.square() + scale.square() - 1) - scale.log()

    def elbo(self, x: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """The two terms of the bound.

        Returns:
            E_q log p(x | z) estimated with one draw, (B,), and KL(q ‖ p) of each latent, (B, latent_dim); nats.
        """
        q = self.posterior(x)
        return self.log_likelihood(x, self.draw(q, 1, generator))[0], self.kl(q)

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """−L_K, the negative of the bound.

        K = 1: −E_q log p(x | z) + β_t Σ_d max(λ, KL_d), with β_t rising over `kl_warmup` steps and free bits λ.
        K > 1: −log (1/K) Σ_k p(x | z_k) (p(z_k) / q(z_k | x))^β_t.
        """
        beta, q = self.beta_at(self.global_step), self.posterior(x)
        z = self.draw(q, self.num_particles)
        pathwise = self.estimator == "pathwise"
        z = z if pathwise else z.detach()
        reconstruction, kl = self.log_likelihood(x, z), self.kl(q)
        if self.num_particles == 1:
            penalty = kl.sum(1)
            if self.free_bits > 0:
                penalty = kl.mean(0).clamp_min(self.free_bits).sum().expand(len(x))
            bound = reconstruction[0] - beta * penalty
            signal = None if pathwise else leave_one_out(reconstruction[0])
        else:
            log_weights = reconstruction + beta * (self.prior(z).log_prob(z) - q.log_prob(z))
            bound = importance_weighted_bound(log_weights)
            signal = None if pathwise else leave_one_out_bound(log_weights)
        if signal is not None:
            bound = bound + score_term(signal, q.log_prob(z)).sum(0)
        return {"loss": -bound, **elbo_terms(reconstruction.mean(0), kl)}

    def beta_at(self, step: int) -> float:
        """The weight of KL at a training step."""
        return self.beta * (min(1.0, step / self.kl_warmup) if self.kl_warmup else 1.0)

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """nll = −L_K ≥ −log p(x) in expectation, and the ELBO with its terms: with β = 1 and no free bits."""
        terms = elbo_terms(*self.elbo(x, generator))
        if self.num_particles == 1:
            return {"nll": -terms["elbo"], **terms}
        return {"nll": -self.log_prob(x, num_particles=self.num_particles, generator=generator), **terms}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Logs `evaluation`, and remembers the posterior of each datum."""
        super().validation_step(batch, batch_idx)
        q = self.posterior(self.unpack(batch)[0]).base_dist
        self._posteriors.append(torch.stack([q.loc, q.scale]).cpu())

    def on_validation_epoch_end(self) -> None:
        """Logs what KL is spent on over the whole validation set, and how many latents are in use."""
        super().on_validation_epoch_end()
        mean, scale = torch.cat(gather(torch.cat(self._posteriors, 1)), 1)
        self._posteriors.clear()
        for name, value in posterior_figures(mean, scale).items():
            self.log(f"val/{name}", value.to(self.device, torch.float32), sync_dist=True)

    # ---- capabilities

    @torch.no_grad()
    def sample(self, num_samples: int, *, labels: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """z ~ p(z), then x ~ p(x | z): a draw, not the mean.

        Returns:
            (num_samples, *shape), in the data's range and on its grid.

        Raises:
            ValueError: if labels are given, this model being unconditional, or num_samples is no count.
        """
        check_count("num_samples", num_samples)
        if labels is not None:
            raise ValueError("This VAE is unconditional: it was not trained on labels, so it cannot sample for one.")
        z = normal((num_samples, self.latent_dim), like=self.like, generator=generator)
        return self.decoded(z).sample(generator)

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, num_particles: int = 1, generator: Generator | None = None) -> Tensor:
        """A lower bound on log p(x): log (1/K) Σ_k p(x, z_k) / q(z_k | x), z_k ~ q(z | x) (Burda et al. 2016, eq. 8).

        Args:
            x: (B, *shape).
            num_particles: K. With 1 it is an estimate of the ELBO; it rises with K towards log p(x).
            generator: `PerDatum(x)` makes the value depend on x alone.

        Returns:
            (B,), nats.
        """
        x = self.check(x)
        check_count("num_particles", num_particles)
        q = self.posterior(x)
        chunk = max(1, PARTICLE_BUDGET // (self.num_dims * self.num_parameters))
        chunks = []
        for done in range(0, num_particles, chunk):
            k = min(chunk, num_particles - done)
            chunks.append(self.log_weights(x, q, self.draw(q, k, generator)).double().logsumexp(0))
        return (torch.stack(chunks).logsumexp(0) - math.log(num_particles)).to(x.dtype)

    def log_weights(self, x: Tensor, q: Independent, z: Tensor) -> Tensor:
        """log p(x | z) + log p(z) − log q(z | x) for z of shape (K, B, latent_dim): (K, B), nats."""
        return self.log_likelihood(x, z) + self.prior(z).log_prob(z) - q.log_prob(z)

    @torch.no_grad()
    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """How badly x is explained.

        Args:
            x: (B, *shape).
            scorer: "reconstruction" (the default): −log p(x | z = E_q z), which leaves out how unusual the code is
                and tells one class from others better than the bound does; "nll": −ELBO.

        Returns:
            (B,), nats, higher = odder.
        """
        x = self.check(x)
        if scorer in (None, "reconstruction"):
            return -self.decoded(self.posterior(x).mean).log_prob(x)
        if scorer == "nll":
            return self.evaluation(x, None, PerDatum(x))["nll"]
        raise ValueError(f"scorer={scorer!r}: a VAE knows 'reconstruction' and 'nll'.")

    def fill_in(self, x: Tensor, known: Tensor, num_samples: int, generator: Generator | None) -> Tensor:
        """Metropolis-within-Gibbs (Mattei & Frellsen 2018, algorithm 1), which leaves p(x_unknown | x_known) fixed.

        Each sweep proposes z' ~ q(z | x), accepts it with probability min(1, w(z') / w(z)) where
        w(z) = p(x, z) / q(z | x), and draws the unknown dimensions anew from p(x | z). The burn-in accepts every
        proposal (pseudo-Gibbs, Rezende et al. 2014, appendix F), which finds the typical set sooner.
        """
        mask = known.expand(num_samples, *x.shape).flatten(0, 1)
        target = x.expand(num_samples, *x.shape).flatten(0, 1)
        z = normal((len(target), self.latent_dim), like=target, generator=generator)
        state = torch.where(mask, target, self.decoded(z).sample(generator))
        for sweep in range(self.completion_sweeps):
            q = self.posterior(state)
            proposal = self.draw(q, 1, generator)[0]
            if sweep < self.completion_sweeps // 4:
                z = proposal
            else:
                log_ratio = self.log_weights(state, q, torch.stack([proposal, z]))
                accept = uniform((len(z),), like=z, generator=generator).log() < log_ratio[0] - log_ratio[1]
                z = torch.where(accept[:, None], proposal, z)
            state = torch.where(mask, target, self.decoded(z).sample(generator))
        return state.unflatten(0, (num_samples, len(x)))


def elbo_terms(reconstruction: Tensor, kl: Tensor) -> dict[str, Tensor]:
    """The ELBO and its two terms, each (B,), from `reconstruction` (B,) and the KL of each latent (B, d), in nats."""
    return {"elbo": reconstruction - kl.sum(1), "reconstruction": reconstruction, "kl": kl.sum(1)}


#: numbers of decoder output held at once for each datum while evaluating importance samples: in a batch of 128, about
#: what caches hold. The batch's size has no say: how noise is drawn must not depend on who else is in it.
PARTICLE_BUDGET = 2**15
