"""Completions of a variational autoencoder, by a Markov chain over its latents and what is not known."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Independent

from genzoo.zoo.likelihoods import Output, shown
from genzoo.zoo.mixins import CompletionMixin, ConditionalMixin
from genzoo.zoo.randomness import Generator, choose_component, normal, uniform


class GibbsMixin(ConditionalMixin, CompletionMixin):
    """`complete` of a model with latents that states q(z | x) and p(x | z)."""

    #: sweeps of the Markov chain; the first quarter is burn-in without rejection
    completion_sweeps = 64

    levels: int | None
    latent_dim: int
    pixel_noise: bool
    decoded: Callable[[Tensor], Output]

    @abstractmethod
    def posterior(self, x: Tensor, labels: Tensor | None = None) -> Independent:
        """q(z | x), or q(z | x, y)."""

    @abstractmethod
    def code(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """What the decoder is given: the latents, and the class."""

    @abstractmethod
    def draw(self, q: Independent, num_particles: int, generator: Generator | None = None) -> Tensor:
        """(K, B, latent_dim), reparameterised."""

    @abstractmethod
    def log_weights(self, x: Tensor, q: Independent, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(x | z) + log p(z) − log q(z | x): (K, B), nats."""

    def fill_in(
        self,
        x: Tensor,
        known: Tensor,
        num_samples: int,
        generator: Generator | None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Metropolis-within-Gibbs (Mattei & Frellsen 2018, algorithm 1), which leaves p(x_unknown | x_known) fixed.

        Each sweep proposes z' ~ q(z | x), accepts it with probability min(1, w(z') / w(z)) where
        w(z) = p(x, z) / q(z | x), and draws the unknown dimensions anew from p(x | z). The burn-in accepts every
        proposal (pseudo-Gibbs, Rezende et al. 2014, appendix F), which finds the typical set sooner. Of a conditional
        model all of this is given the class: that of `labels`, or one that is drawn anew with the unknown dimensions,
        given z and what is known. Where a likelihood couples the channels of a pixel, one that is known does not tell
        of those before it.
        """
        mask = known.expand(num_samples, *x.shape).flatten(0, 1)
        target = x.expand(num_samples, *x.shape).flatten(0, 1)
        z = normal((len(target), self.latent_dim), like=target, generator=generator)
        stated = None if labels is None else labels.repeat(num_samples)
        labels = self._classes_given(z, target, mask, None, generator) if stated is None else stated
        state = self.decoded(self.code(z, labels)).sample_rest(target, mask, generator)
        for sweep in range(self.completion_sweeps):
            q = self.posterior(state, labels)
            proposal = self.draw(q, 1, generator)[0]
            if sweep < self.completion_sweeps // 4:
                z = proposal
            else:
                log_ratio = self.log_weights(state, q, torch.stack([proposal, z]), labels)
                accept = uniform((len(z),), like=z, generator=generator).log() < log_ratio[0] - log_ratio[1]
                z = torch.where(accept[:, None], proposal, z)
            labels = self._classes_given(z, target, mask, state, generator) if stated is None else stated
            state = self.decoded(self.code(z, labels)).sample_rest(target, mask, generator)
        if not self.pixel_noise:
            state = torch.where(mask, target, shown(self.decoded(self.code(z, labels)), self.levels, noise=False))
        return state.unflatten(0, (num_samples, len(x)))

    def _classes_given(
        self, z: Tensor, x: Tensor, known: Tensor, state: Tensor | None, generator: Generator | None
    ) -> Tensor | None:
        """(B,), drawn from p(y | z, x_known) ∝ p(y) p(x_known | z, y); None of an unconditional model.

        Where channels are coupled, a channel's probability is given those before it. If one of these is unknown, y is
        drawn given the whole state of the chain, x, once there is one.
        """
        if self.num_classes is None:
            return None
        log_joint = []
        for y, log_share in enumerate(self.class_log_prior.tolist()):
            output = self.decoded(self.code(z, torch.full((len(z),), y, device=z.device)))
            given, counted = x, known
            if output.coupled:
                counted = known.cumprod(1).bool()
                if state is not None:
                    torn = (counted != known).flatten(1).any(1).view(-1, *[1] * (x.ndim - 1))
                    given, counted = torch.where(torn, state, x), torn | counted
            terms = torch.where(counted, output.log_prob_per_dim(given), 0.0)
            log_joint.append(terms.flatten(1).sum(1) + log_share)
        noise = uniform((len(z),), like=z, generator=generator)
        return choose_component(torch.stack(log_joint, 1), noise)[0].squeeze(1)
