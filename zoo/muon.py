"""Muon: momentum, made orthogonal (Jordan et al. 2024).

The gradient of a layer's matrix is dominated by few directions. Muon replaces the momentum M = U Σ Vᵀ by U Vᵀ, a step
of the same size in all of them, found without a decomposition: an odd polynomial of M, applied again and again,
drives all singular values towards 1. The kernel of a convolution is the matrix from its patches to its channels.
Embeddings, gains and biases are no maps between layers; they take Adam's step.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def matrix_groups(module: nn.Module, hidden: Iterable[nn.Module]) -> list[dict[str, Any]]:
    """The trainable parameters of a module in two groups: the matrices of its hidden layers, and all others.

    Args:
        module: whose parameters are grouped.
        hidden: the parts of it whose matrices and kernels map between hidden layers; what reads the data, writes
            the output or looks up an embedding is none.

    Returns:
        Two groups, the first marked `matrices: True` for `Muon`; other optimisers take both alike.
    """
    matrices = [p for part in hidden for p in part.parameters() if p.requires_grad and p.ndim >= 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in module.parameters() if p.requires_grad and id(p) not in chosen]
    return [{"params": matrices, "matrices": True}, {"params": others}]


class Muon(torch.optim.Optimizer):
    """Muon for the parameter groups marked `matrices: True`, AdamW without weight decay for the others.

    Args:
        params: parameter groups, as `matrix_groups` makes them.
        lr: of the matrices: an update of a square matrix has a spectral norm of about that.
        adam_lr: of all other parameters.
        momentum: of the matrices, as Nesterov's.
        weight_decay: of the matrices: each step shrinks them by lr · weight_decay.
        betas: of Adam.
        eps: of Adam.

    Raises:
        ValueError: on arguments out of their range, if no group is marked as matrices, or if what is marked is none.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        adam_lr: float = 0.005,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
    ) -> None:
        if min(lr, adam_lr, weight_decay, eps) < 0 or not all(0 <= decay < 1 for decay in (momentum, *betas)):
            raise ValueError(
                f"lr={lr}, adam_lr={adam_lr}, weight_decay={weight_decay} and eps={eps} are at least 0,"
                f" momentum={momentum} and betas={tuple(betas)} in [0, 1)."
            )
        groups = [group if isinstance(group, dict) else {"params": [group]} for group in params]
        if not any(group.get("matrices") for group in groups):
            raise ValueError(
                "Muon was given no group marked `matrices: True`, so there is nothing to make orthogonal steps in:"
                " group the parameters by `genzoo.zoo.muon.matrix_groups`, or take AdamW."
            )
        groups = [{"lr": lr if group.get("matrices") else adam_lr, **group} for group in groups]
        own = {
            "matrices": False,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "betas": tuple(betas),
            "eps": eps,
        }
        super().__init__(groups, own)
        shapes = [tuple(p.shape) for g in self.param_groups if g["matrices"] for p in g["params"] if p.ndim < 2]
        if shapes:
            raise ValueError(
                f"Muon takes steps in matrices and kernels, but a group marked so has parameters of shapes {shapes}."
            )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._muon if group["matrices"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, parameter.grad, self.state[parameter], group)
        return loss

    def _muon(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        momentum = state.setdefault("momentum", torch.zeros_like(weight))
        momentum.lerp_(gradient, 1 - group["momentum"])
        direction = orthogonalised(gradient.lerp(momentum, group["momentum"]).flatten(1))
        rows, columns = direction.shape
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction.view(weight.shape), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)

    def _adam(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        (first, second), t = group["betas"], int(state["step"])
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = (state["square"] / (1 - second**t)).sqrt_().add_(group["eps"])
        weight.addcdiv_(state["mean"], scale, value=-group["lr"] / (1 - first**t))


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """About U Vᵀ of a matrix U Σ Vᵀ: all singular values that are not tiny come to lie between 0.7 and 1.2.

    X ← a X + (b A + c A²) X with A = X Xᵀ, in bfloat16, from X = M / ‖M‖. The coefficients make the least singular
    values grow fastest, rather than the largest end at 1.

    Args:
        matrix: (m, n).
        steps: of the iteration.

    Returns:
        (m, n), bfloat16.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
