"""The variational autoencoder (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014).

A latent-variable model p(x) = ∫ p(x | z) p(z) dz with p(z) = N(0, I), learned with an approximate posterior
q(z | x) = N(μ(x), diag σ²(x)) by maximising the evidence lower bound

    ELBO(x) = E_{q(z|x)} [log p(x | z)] − KL(q(z | x) ‖ p(z)) = log p(x) − KL(q(z | x) ‖ p(z | x)) ≤ log p(x).

Both terms are in nats of the whole datum. KL has a closed form; the expectation is estimated with one reparameterised
draw z = μ + σ ε, ε ~ N(0, I). With K > 1 draws it is trained on the tighter bound of the importance-weighted
autoencoder (Burda, Grosse & Salakhutdinov 2016, eq. 8),

    L_K(x) = E log (1/K) Σ_k w_k,   w_k = p(x | z_k) p(z_k) / q(z_k | x),   ELBO = L_1 ≤ L_2 ≤ … ≤ log p(x).

A conditional one (Sohn, Lee & Yan 2015, with a prior that does not depend on y) is all of this given the class y, in
q(z | x, y) and p(x | z, y). Without a class it is the mixture Σ_y p(y) p(x | y).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn import functional as F

from genzoo.zoo.checks import check_count
from genzoo.zoo.interface import LogProbKind
from genzoo.zoo.latent.encoder_decoder import EncoderDecoderMixin, Factor, Network
from genzoo.zoo.latent.estimators import (
    Estimator,
    check_estimator,
    importance_weighted_bound,
    leave_one_out,
    leave_one_out_bound,
    score_term,
)
from genzoo.zoo.latent.gibbs import GibbsMixin
from genzoo.zoo.latent.posterior import posterior_figures, thinned
from genzoo.zoo.likelihoods import Likelihood, Output, shown
from genzoo.zoo.mixins import ClassPrior, Conditional, LogProbMixin
from genzoo.zoo.module import ZooModule
from genzoo.zoo.parts import Part, label_of
from genzoo.zoo.processes import gather
from genzoo.zoo.randomness import Generator, PerDatum, normal


class VAE(LogProbMixin, GibbsMixin, EncoderDecoderMixin, ZooModule):
    """A variational autoencoder with one layer of Gaussian latents.

    Capabilities: `sample`, `log_prob` (a lower bound), `anomaly_score`, `complete`, `encode`, `decode`,
    `reconstruct`, `interpolate`, `traverse`; conditional on demand.

    Args:
        shape, levels, optimizer, lr_scheduler: as in `ZooModule`.
        latent_dim: d, the number of latent variables; of the "spatial" network, of those at each place of a grid.
        network: "mlp" (gated residual perceptrons, images or points) or "resnet" (residual convolutions, images);
            None takes "resnet" for images, "mlp" for points. Or "spatial" (residual convolutions, images), whose
            latents are a grid of vectors, `latent_shape`: what the prior of a `LatentModel` is for. A code is that
            grid, flat.
        factor: pixels along a side of which the "spatial" network makes one vector: 2, 4 or 8; None takes 4.
        width: hidden units of the perceptrons, or channels of the convolutions at full image size; None takes 512 or
            32.
        depth: residual blocks, for convolutions at each resolution; None takes 2 or 1.
        encoder: a module of your own, (B, *shape) in [−1, 1] (if continuous: as they are, points standardised; where
            the model is conditional, plus what was learned of the class) to (B, 2 d): μ and log σ.
        decoder: a module of your own, (B, d), or (B, d + C) of a conditional model of C classes, to the numbers that
            the likelihood needs, (B, *parameter_shape(shape, levels)) up to reshaping.
        likelihood: p(x | z); None takes `default_likelihood(levels)`. Of colour images with many levels
            `LogisticMixture` says more: a pixel's channels go together, rather than each with its own noise. With few
            components the latents have to tell more; pixels remain independent of each other given z.
        num_particles: K of the bound that is trained and validated. 1 is the VAE, more the importance-weighted
            autoencoder; the decoder's work grows with K, the encoder's does not.
        estimator: of the gradient with respect to the encoder: "pathwise", or "score_function" with a leave-one-out
            baseline, which needs no derivative of the decoder along z and scatters far more; see `estimators`.
        beta: weight of KL in the training loss (Higgins et al. 2017), of log p(z) − log q(z | x) where K > 1.
            Evaluation always uses 1.
        kl_warmup: training steps, of a Trainer's, over which that weight rises linearly from 0 (Bowman et al. 2016).
        free_bits: nats for each latent dimension, averaged over the batch, below which its KL is not penalised
            (Kingma et al. 2016, eq. 15). Evaluation ignores it. Only where K = 1.
        pixel_noise: whether samples and completions are drawn from p(x | z), as `log_prob` takes them; or else are
            its mean, at the nearest level: less noisy than the model's distribution, and what is usually shown.
        num_classes: C, how many classes the data have.
        conditional: whether to model p(x | y) of the class y rather than p(x).
        class_prior: p(y) where no label is given: the classes' shares in the "training" data, or "uniform" over
            those that they have.

    Raises:
        ValueError: on arguments that do not fit each other or the data.
    """

    log_prob_kind: LogProbKind = "lower_bound"
    #: what is added to the loss of a training step, such as a callback's `FeatureLoss`: see `TakesAddedLoss`
    added_loss: Callable[[Tensor, Tensor], Tensor] | None = None

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        latent_dim: int = 32,
        network: Network | None = None,
        factor: Factor | None = None,
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
        pixel_noise: bool = True,
        num_classes: int | None = None,
        conditional: Conditional = False,
        class_prior: ClassPrior = "training",
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
        self.pixel_noise = pixel_noise
        self.condition_on(num_classes, conditional, class_prior)
        self.build_networks(
            2,  # μ and log σ
            latent_dim=latent_dim,
            factor=factor,
            network=network,
            width=width,
            depth=depth,
            encoder=encoder,
            decoder=decoder,
            likelihood=likelihood,
            num_classes=self.num_classes,
        )
        self._posteriors: list[Tensor] = []  # of the validation under way: (2, B, d), μ and σ

    # ---- the model

    def encode(self, x: Tensor, *, labels: Tensor | None = None) -> Independent:
        """q(z | x), a normal distribution with diagonal covariance over (B, latent_dim).

        Where the model is conditional, q(z | x, y) and behind it the class, one-hot and without variance: a code
        (B, latent_dim + C) is all that `decode` needs.

        Args:
            x: (B, *shape), in the data's range, though images need not lie on their grid.
            labels: (B,), the classes; None takes for each datum the class that explains it best.
        """
        x = self.check(x, on_grid=False)
        labels = self.classes(x, labels)
        q = self.posterior(x, labels)
        if labels is None:
            return q
        return _normal(self.code(q.mean, labels), F.pad(q.base_dist.scale, (0, self.code_dim - self.latent_dim)))

    def posterior(self, x: Tensor, labels: Tensor | None = None) -> Independent:
        """q(z | x), or q(z | x, y), for x that was checked before, or is training data."""
        mean, log_scale = self.features(x, labels).chunk(2, dim=1)
        return _normal(mean, log_scale.clamp(-7, 7).exp())

    def code(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """What the decoder is given: z, (..., B, latent_dim), and behind it the class, one-hot."""
        if labels is None or self.num_classes is None:
            return z
        classes = F.one_hot(labels, self.num_classes).to(z.dtype)
        return torch.cat([z, classes.expand(*z.shape[:-1], -1)], -1)

    @torch.no_grad()
    def classes(self, x: Tensor, labels: Tensor | None) -> Tensor | None:
        """Those given; without them, of a conditional model, argmax_y log p(y) + log w(z = E q(z | x, y)): (B,)."""
        if labels is not None or self.num_classes is None:
            return self.checked_labels(labels, len(x))
        joint = []
        for y, log_share in enumerate(self.class_log_prior.tolist()):
            given = torch.full((len(x),), y, device=x.device)
            q = self.posterior(x, given)
            joint.append(self.log_weights(x, q, q.mean.unsqueeze(0), given)[0] + log_share)
        return torch.stack(joint).argmax(0)

    def parts(self) -> dict[str, Part]:
        """As in the base; the encoder gives the mean and the standard deviation of q(z | x), or of q(z | x, y)."""
        known = super().parts()

        def encoder(x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
            q = self.posterior(x, label).base_dist
            return q.loc, q.scale

        inputs = known["encoder"].inputs | label_of(self)
        return known | {"encoder": Part(self, encoder, inputs, ("mean", "std"))}

    def prior(self, like: Tensor) -> Independent:
        """p(z) = N(0, I)."""
        mean = torch.zeros(self.latent_dim, device=like.device, dtype=like.dtype)
        return _normal(mean, torch.ones_like(mean))

    # ---- training

    def log_likelihood(self, x: Tensor, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(x | z) for z of shape (K, B, latent_dim): (K, B), nats; the decoder runs once, over all K·B codes."""
        output, repeated = self._rendered(x, z, labels)
        return output.log_prob(repeated).view(len(z), -1)

    def _rendered(self, x: Tensor, z: Tensor, labels: Tensor | None) -> tuple[Output, Tensor]:
        """p(x | z) of all K·B codes, and as many x."""
        return self.decoded(self.code(z, labels).flatten(0, 1)), x.expand(len(z), *x.shape).flatten(0, 1)

    def draw(self, q: Independent, num_particles: int, generator: Generator | None = None) -> Tensor:
        """z_k = μ + σ ε_k, reparameterised: (K, B, latent_dim)."""
        size = (num_particles, *q.mean.shape)
        return q.mean + q.base_dist.scale * normal(size, like=q.mean, generator=generator, batch_dim=1)

    def kl(self, q: Independent) -> Tensor:
        """KL(q(z | x) ‖ p(z)) of each latent, (B, latent_dim), nats."""
        mean, scale = q.base_dist.loc, q.base_dist.scale
        return 0.5 * (mean.square() + scale.square() - 1) - scale.log()

    def elbo(
        self, x: Tensor, generator: Generator | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The two terms of the bound.

        Returns:
            E_q log p(x | z) estimated with one draw, (B,), and KL(q ‖ p) of each latent, (B, latent_dim); nats.
        """
        q = self.posterior(x, labels)
        return self.log_likelihood(x, self.draw(q, 1, generator), labels)[0], self.kl(q)

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """−L_K, the negative of the bound; given the label where the model is conditional.

        K = 1: −E_q log p(x | z) + β_t Σ_d max(λ, KL_d), with β_t rising over `kl_warmup` steps and free bits λ.
        K > 1: −log (1/K) Σ_k p(x | z_k) (p(z_k) / q(z_k | x))^β_t.
        """
        labels = None if self.num_classes is None else self.checked_labels(labels, len(x))
        beta, q = self.weight_of_kl, self.posterior(x, labels)
        z = self.draw(q, self.num_particles)
        pathwise = self.estimator == "pathwise"
        z = z if pathwise else z.detach()
        (output, repeated), kl = self._rendered(x, z, labels), self.kl(q)
        reconstruction = output.log_prob(repeated).view(len(z), -1)
        added = None if self.added_loss is None else self.added_loss(repeated, output.mean).view(len(z), -1)
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
            if added is not None:  # each draw's own, a K-th of what is added
                signal = signal - torch.stack([leave_one_out(one) for one in added]) / len(z)
            bound = bound + score_term(signal, q.log_prob(z)).sum(0)
        terms = elbo_terms(reconstruction.mean(0), kl)
        if added is None:
            return {"loss": -bound, **terms}
        return {"loss": added.mean(0) - bound, "added_loss": added.mean(0), **terms}

    @property
    def weight_of_kl(self) -> float:
        """β_t of this step; β without a Trainer, which would count them."""
        return self.beta if self._trainer is None else self.beta_at(self.global_step)

    def beta_at(self, step: int) -> float:
        """The weight of KL at a training step."""
        return self.beta * (min(1.0, step / self.kl_warmup) if self.kl_warmup else 1.0)

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """nll = −L_K ≥ −log p(x) in expectation, and the ELBO with its terms: with β = 1 and no free bits.

        Of a conditional model nll is of the marginal p(x), the terms are given the label, if the data have them.
        """
        labels = None if self.num_classes is None else self.classes(x, labels)
        terms = elbo_terms(*self.elbo(x, generator, labels))
        if self.num_particles == 1 and labels is None:
            return {"nll": -terms["elbo"], **terms}
        return {"nll": -self.log_prob(x, num_particles=self.num_particles, generator=generator), **terms}

    def on_validation_epoch_start(self) -> None:
        """Forgets those of a validation that was broken off."""
        super().on_validation_epoch_start()
        self._posteriors.clear()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs `evaluation`, and remembers the posterior of each datum."""
        super().validation_step(batch, batch_idx, dataloader_idx)
        x, labels = self.unpack(batch)
        q = self.posterior(x, None if self.num_classes is None else self.classes(x, labels)).base_dist
        self._posteriors.append(torch.stack([q.loc, q.scale]).cpu())

    def on_validation_epoch_end(self) -> None:
        """Logs what KL is spent on over the whole validation set, and how many latents are in use."""
        super().on_validation_epoch_end()
        mean, scale = torch.cat(gather(thinned(torch.cat(self._posteriors, 1))), 1)
        self._posteriors.clear()
        for name, value in posterior_figures(mean, scale).items():
            self.log(f"val/{name}", value.to(self.device, torch.float32), sync_dist=True)

    # ---- capabilities

    @torch.no_grad()
    def sample(self, num_samples: int, *, labels: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """z ~ p(z), then x ~ p(x | z): a draw, not the mean, unless `pixel_noise` is False.

        Args:
            num_samples: N.
            labels: (N,), where the model is conditional; without them they are drawn from p(y).
            generator: of the labels, the latents and the draws from p(x | z).

        Returns:
            (num_samples, *shape), in the data's range and on its grid.

        Raises:
            ValueError: if labels are given to an unconditional model, or num_samples is no count.
        """
        labels = self.labels_to_sample(labels, num_samples, self.like, generator)
        z = normal((num_samples, self.latent_dim), like=self.like, generator=generator)
        return shown(self.decoded(self.code(z, labels)), self.levels, self.pixel_noise, generator)

    @torch.no_grad()
    def log_prob(
        self,
        x: Tensor,
        *,
        labels: Tensor | None = None,
        num_particles: int = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """A lower bound on log p(x): log (1/K) Σ_k p(x, z_k) / q(z_k | x), z_k ~ q(z | x) (Burda et al. 2016, eq. 8).

        Args:
            x: (B, *shape).
            labels: (B,); with them a bound on log p(x | y), without them of a conditional model the logarithm of
                Σ_y p(y) (1/K) Σ_k w_k, whose weights are on average p(x | y): a bound again.
            num_particles: K. With 1 it is an estimate of the ELBO; it rises with K towards log p(x).
            generator: `PerDatum(x)` makes the value depend on x alone.

        Returns:
            (B,), nats.
        """
        x = self.check(x)
        check_count("num_particles", num_particles)
        if labels is not None or self.num_classes is None:
            return self._bound(x, self.checked_labels(labels, len(x)), num_particles, generator).to(x.dtype)
        log_prior = self.class_log_prior
        joint = [
            log_prior[y] + self._bound(x, torch.full((len(x),), y, device=x.device), num_particles, generator)
            for y in self.present_classes()
        ]
        return torch.stack(joint).logsumexp(0).to(x.dtype)

    def _bound(self, x: Tensor, labels: Tensor | None, num_particles: int, generator: Generator | None) -> Tensor:
        """log (1/K) Σ_k w_k, (B,) float64."""
        q = self.posterior(x, labels)
        chunk = max(1, PARTICLE_BUDGET // math.prod(self.parameter_shape))
        chunks = []
        for done in range(0, num_particles, chunk):
            k = min(chunk, num_particles - done)
            chunks.append(self.log_weights(x, q, self.draw(q, k, generator), labels).double().logsumexp(0))
        return torch.stack(chunks).logsumexp(0) - math.log(num_particles)

    def log_weights(self, x: Tensor, q: Independent, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(x | z) + log p(z) − log q(z | x) for z of shape (K, B, latent_dim): (K, B), nats."""
        return self.log_likelihood(x, z, labels) + self.prior(z).log_prob(z) - q.log_prob(z)

    @torch.no_grad()
    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """How badly x is explained.

        Args:
            x: (B, *shape).
            scorer: "reconstruction" (the default): −log p(x | z = E_q z), which leaves out how unusual the code is
                and tells one class from others better than the bound does; "nll": −L_K, which it is trained on.

        Returns:
            (B,), nats, higher = odder.
        """
        x = self.check(x)
        if scorer in (None, "reconstruction"):
            return -self.decoded(self.encode(x).mean).log_prob(x)
        if scorer == "nll":
            return self.evaluation(x, None, PerDatum(x))["nll"]
        raise ValueError(f"scorer={scorer!r}: a VAE knows 'reconstruction' and 'nll'.")


def _normal(mean: Tensor, scale: Tensor) -> Independent:
    """N(mean, diag scale²) over the last dimension."""
    return Independent(Normal(mean, scale, validate_args=False), 1, validate_args=False)


def elbo_terms(reconstruction: Tensor, kl: Tensor) -> dict[str, Tensor]:
    """The ELBO and its two terms, each (B,), from `reconstruction` (B,) and the KL of each latent (B, d), in nats."""
    return {"elbo": reconstruction - kl.sum(1), "reconstruction": reconstruction, "kl": kl.sum(1)}


#: numbers of decoder output held at once for each datum while evaluating importance samples: in a batch of 128, about
#: what caches hold. The batch's size has no say: how noise is drawn must not depend on who else is in it.
PARTICLE_BUDGET = 2**15
