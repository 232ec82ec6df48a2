"""The likelihood of data whose class is not told, by a model that knows p(x | y) only up to a draw."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from genzoo.zoo.checks import check_count
from genzoo.zoo.mixins import ConditionalMixin, LogProbMixin
from genzoo.zoo.precision import full_precision
from genzoo.zoo.randomness import Generator, PerDatum, check_generator, repeatable, twin


class MarginalBoundMixin(ConditionalMixin, LogProbMixin):
    """Gives `log_prob` to a family that draws estimates of log p(x | y), or of log p(x) without classes."""

    #: classes that are this much less likely than the likeliest are left out of a marginal likelihood
    unlikely = 1e-3

    like: Tensor  # from ZooModule

    @abstractmethod
    def log_prob_given(
        self, x: Tensor, labels: Tensor | None, num_particles: int, generator: Generator | None
    ) -> Tensor:
        """(B,) float64, nats: an estimate of log p(x | y), or of a bound on it; of log p(x) where labels are None."""

    def about_log_prob_given(self, x: Tensor, labels: Tensor, num_particles: int, generator: Generator) -> Tensor:
        """The same, perhaps rougher: it only says which class is how likely."""
        return self.log_prob_given(x, labels, num_particles, generator)

    @torch.no_grad()
    def log_prob(
        self,
        x: Tensor,
        *,
        labels: Tensor | None = None,
        num_particles: int = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """log p(x), by the method of the family (`log_prob_given`).

        Without labels a conditional model marginalises: log Σ_y π_y p(x | y), with the classes' shares π. Each
        L_y ≈ log p(x | y) is a draw, at best right on average, and log Σ_y π_y e^(L_y) would be too high, as it rises
        with the noise of the L_y (Jensen). So one set of draws only says how likely each class is,
        q_y ∝ π_y e^(L_y), and another is averaged: Σ_y q_y (L_y + log π_y − log q_y), an evidence lower bound with
        the class as the latent. In expectation it is never above the marginal of E L_y, whatever q; without noise,
        and with the best q, it is that marginal. So the first set may be rough (`log_joint`), and the second leaves
        out the classes that the first finds very unlikely.

        Args:
            x: (B, *shape).
            labels: (B,) for a conditional model; None marginalises over its classes.
            num_particles: of the estimate.
            generator: `PerDatum(x)` makes the value depend on x alone.

        Returns:
            (B,), nats.
        """
        x = self.check(x)  # type: ignore[attr-defined]
        check_count("num_particles", num_particles)
        check_generator(generator)
        dtype = full_precision(x if x.is_floating_point() else self.like).dtype
        if self.num_classes is None or labels is not None:
            given = self.checked_labels(labels, len(x))
            return self.log_prob_given(x, given, num_particles, generator).to(dtype)
        generator = repeatable(generator, x.device)
        log_q = self.log_joint(x, num_particles, generator).log_softmax(0)
        unknown = log_q.isnan().any(0)  # which is no likelihood of 1, as the sum over no class would be
        log_q = log_q.where(log_q > log_q.amax(0) + math.log(self.unlikely), -math.inf).log_softmax(0)
        log_prior = self.class_log_prior.to(x.device)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for y, log_q_y, rows in zip(self.present_classes(), log_q, rows_above_zero(log_q), strict=True):
            if rows:
                own = generator.of(rows) if isinstance(generator, PerDatum) else generator
                labels = torch.full((len(rows),), y, device=x.device)
                log_p = log_prior[y] + self.log_prob_given(x[rows], labels, num_particles, own)
                total[rows] += log_q_y[rows].exp() * (log_p - log_q_y[rows])
        return total.masked_fill(unknown, math.nan).to(dtype)

    def log_joint(self, x: Tensor, num_particles: int, generator: Generator) -> Tensor:
        """About L_y + log π_y, float64, (as many as there are classes with a share, B), all with the same noise.

        Most of that noise cancels where classes are compared. The generator goes on as after one of them.
        """
        log_prior, classes = self.class_log_prior.to(x.device), self.present_classes()
        generators = [*(twin(generator) for _ in classes[1:]), generator]
        joint = [
            log_prior[y]
            + self.about_log_prob_given(x, torch.full((len(x),), y, device=x.device), num_particles, same)
            for y, same in zip(classes, generators, strict=True)
        ]
        return torch.stack(joint)


def rows_above_zero(log_q: Tensor) -> list[list[int]]:
    """Of each class, the rows of (classes, B) log-probabilities that are not −∞: one look for a whole batch."""
    return [[i for i, likely in enumerate(row) if likely] for row in (log_q > -math.inf).tolist()]
