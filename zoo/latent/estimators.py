"""Estimates of an expectation over latents, and of its gradient, from draws z_k ~ q(z | x).

The gradient with respect to the parameters φ of q itself can be had in two ways:

    pathwise (reparameterisation):    ∇_φ E_q f(z) = E_ε [∇_φ f(z_φ(ε))],  z_φ(ε) = μ + σ ε
    score function (REINFORCE):       ∇_φ E_q f(z) = E_q [(f(z) − b) ∇_φ log q(z)]

The first differentiates f along the path of each draw. The second only needs its value, so that it also works where
f is a black box or z is discrete; the baseline b, which may depend on anything but this z, makes it bearable.
"""

import math
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

Estimator = Literal["pathwise", "score_function"]


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """log (1/K) Σ_k w_k: the K-sample lower bound on log p(x) (Burda et al. 2016, eq. 8).

    Args:
        log_weights: (K, B), log p(x, z_k) − log q(z_k | x) in nats, with z_k drawn from q(z | x).

    Returns:
        (B,), nats. K = 1 is the ELBO; in expectation it rises with K towards log p(x), never above it.
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def score_term(signal: Tensor, log_q: Tensor) -> Tensor:
    """Zero, with the gradient signal · ∇ log q: what the score function adds to an estimate of E_q f.

    Args:
        signal: f(z) − b, of any shape; no gradient flows through it.
        log_q: log q(z) at a z that is itself detached, of the same shape.
    """
    weighted = signal.detach() * log_q
    return weighted - weighted.detach()


def leave_one_out(values: Tensor) -> Tensor:
    """f_i − b_i with b_i the mean of all the other values (Kool et al. 2019): (N,) to (N,); alone, f itself."""
    n = len(values)
    return values if n == 1 else (values - values.mean()) * n / (n - 1)


def leave_one_out_bound(log_weights: Tensor) -> Tensor:
    """The signal of each draw in the K-sample bound: the bound less what it would be without that draw.

    "Without" means that its weight is replaced by the geometric mean of the others (Mnih & Rezende 2016, "VIMCO",
    eq. 10), so that the baseline does not depend on the draw.

    Args:
        log_weights: (K, B) with K ≥ 2, nats.

    Returns:
        (K, B), nats.
    """
    k = len(log_weights)
    others = (log_weights.sum(0) - log_weights) / (k - 1)
    replaced = torch.where(torch.eye(k, dtype=torch.bool, device=others.device)[..., None], others, log_weights)
    return importance_weighted_bound(log_weights) - (replaced.logsumexp(1) - math.log(k))


class HasEstimator(Protocol):
    """A latent-variable model whose gradient can be estimated in either way, such as `VAE`."""

    estimator: Estimator
    encoder: nn.Module

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """As in `ZooModule`."""
        ...


def gradient_moments(
    model: HasEstimator,
    x: Tensor,
    *,
    labels: Tensor | None = None,
    estimator: Estimator,
    num_draws: int = 100,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """How an estimator's gradient scatters: the encoder's gradient of the mean loss on one batch, drawn repeatedly.

    Args:
        model: left as it was.
        x: (B, *shape), the batch.
        labels: (B,), of a conditional model.
        estimator: "pathwise" or "score_function".
        num_draws: at least 2.
        seed: of the draws; the global random state is left as it was.

    Returns:
        Mean and variance of each of the encoder's P parameters' derivative, (P,) and (P,), float64. Two unbiased
        estimators agree in the mean; the sum of the variances is what compares them.

    Raises:
        ValueError: for fewer than 2 draws or an unknown estimator.
    """
    if num_draws < 2:
        raise ValueError(f"num_draws={num_draws}: a variance takes at least two draws.")
    check_estimator(estimator)
    encoder = list(model.encoder.parameters())
    own, model.estimator = model.estimator, estimator
    gradients = []
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(seed)
            for _ in range(num_draws):
                loss = model.objective(x, labels)["loss"].mean()
                gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, encoder)]).double())
    finally:
        model.estimator = own
    stacked = torch.stack(gradients)
    return stacked.mean(0), stacked.var(0)


def check_estimator(estimator: str) -> None:
    """Raises ValueError unless it is one of the two."""
    if estimator not in get_args(Estimator):
        raise ValueError(f"estimator={estimator!r}: choose 'pathwise' or 'score_function'.")
