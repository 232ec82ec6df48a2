"""Muon: momentum, made orthogonal (Jordan et al. 2024).

The gradient of a layer's matrix is dominated by few directions. Muon replaces the momentum M = U Σ Vᵀ by U Vᵀ, a step
of the same size in all of them, found without a decomposition: an odd polynomial of M, applied again and again,
drives all singular values towards 1. The kernel of a convolution is the matrix from its patches to its channels.
Embeddings, gains and biases are no maps between layers; they take Adam's step.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from genzoo.zoo.optimizers import has_fused_kernels, laid_out, lay_out_state
from genzoo.zoo.precision import fast_bfloat16
from genzoo.zoo.sharding import is_shared, own, share_of, whole

#: coefficients of the polynomial (Jordan et al. 2024)
A, B, C = 3.4445, -4.7750, 2.0315
#: numbers of matrices that a processor takes a step of at once, as many as its caches hold; or that are gathered at
#: once where they are spread over devices
AT_ONCE = 2**19
#: so many times as long as wide or less, a matrix is orthogonalised as fast in bfloat16, as measured without AMX
LONG = 4


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
        own = {"matrices": False, "lr": adam_lr, "weight_decay": weight_decay, "betas": tuple(betas), "eps": eps}
        super().__init__(groups, own | {"of_matrices": {"lr": lr, "betas": (momentum, betas[1])}})
        self.register_load_state_dict_pre_hook(_of_this_version)
        self.register_load_state_dict_post_hook(lay_out_state)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as PyTorch's optimisers do; marked `matrices: True`, it is one for Muon's steps.

        Raises:
            ValueError: if what is marked is none.
        """
        group = dict(param_group)
        if group.get("matrices"):
            group = self.defaults["of_matrices"] | group
            if "momentum" in group:
                group["betas"] = (group.pop("momentum"), group["betas"][1])
            given = group["params"] if not isinstance(group["params"], Tensor) else [group["params"]]
            group["params"] = list(given)
            if shapes := [tuple(p.shape) for p in group["params"] if isinstance(p, Tensor) and p.ndim < 2]:
                raise ValueError(
                    "Muon takes steps in matrices and kernels, but a group marked so has parameters of shapes"
                    f" {shapes}."
                )
        super().add_param_group(group)
        del self.param_groups[-1]["of_matrices"]  # which is for groups added later

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not group["matrices"]:
                self._adam(weights, group)
                continue
            alike = defaultdict(list)
            for weight in weights:
                alike[_matrix_of(weight, weight).shape, weight.dtype, weight.device].append(weight)
            for (shape, _, device), stack in alike.items():
                few = device.type == "cpu" or is_shared(stack[0])
                n = max(1, AT_ONCE // shape.numel()) if few else len(stack)
                for first in range(0, len(stack), n):
                    self._muon(stack[first : first + n], shape, group)
        return loss

    def _muon(self, weights: list[Tensor], shape: torch.Size, group: dict[str, Any]) -> None:
        """A step of weights whose matrices are of one shape."""
        momenta, gradients = self._states("momentum", weights), _gradients(weights)
        momentum = group["betas"][0]  # where schedules look for it
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, momenta, momentum)
        stack = torch.stack([_matrix_of(whole(m), w) for m, w in zip(ahead, weights, strict=True)])
        directions = orthogonalised(stack.to(_precision(stack))).to(stack.dtype)
        rate = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
        steps = [share_of(_weight_of(m, w), w) for m, w in zip(directions, weights, strict=True)]
        owned = [own(w) for w in weights]
        torch._foreach_mul_(owned, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(owned, steps, alpha=-rate)

    def _adam(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            step = self.state[weight].get("step", torch.zeros((), dtype=torch.float32))
            self.state[weight]["step"] = step.to(weight.device)  # of a checkpoint, it is on the CPU
        adamw(
            weights,
            _gradients(weights),
            self._states("mean", weights),
            self._states("square", weights),
            [],
            [self.state[w]["step"] for w in weights],
            fused=has_fused_kernels(weights),
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )

    def _states(self, name: str, weights: list[Tensor]) -> list[Tensor]:
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]


def _of_this_version(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Of genzoo 0.1, where the momentum of matrices was not among the betas."""
    groups = [dict(group) for group in state["param_groups"]]
    for group in groups:
        if (momentum := group.pop("momentum", None)) is not None and group.get("matrices"):
            group["betas"] = (momentum, group["betas"][1])
    return state | {"param_groups": groups}


def _gradients(weights: list[Tensor]) -> list[Tensor]:
    return [laid_out(w.grad, w) for w in weights if w.grad is not None]


def _matrix_of(t: Tensor, weight: Tensor) -> Tensor:
    """A tensor of a weight's shape as the matrix from its patches to its channels.

    Its columns are in the order in which the weight lies in memory: they may be in any, and that one takes no copy.
    """
    return (t if weight.is_contiguous() else t.movedim(1, -1)).flatten(1)


def _weight_of(matrix: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `_matrix_of`."""
    if weight.is_contiguous():
        return matrix.view(weight.shape)
    return matrix.view(weight.movedim(1, -1).shape).movedim(-1, 1)


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """About U Vᵀ of matrices U Σ Vᵀ: all singular values that are not tiny come to lie between 0.7 and 1.2.

    X ← a X + (b A + c A²) X with A = X Xᵀ, from X = M / ‖M‖. The coefficients make the least singular values grow
    fastest, rather than the largest end at 1.

    Args:
        matrices: (..., m, n), in the precision to compute in: bfloat16, or float32 at least.
        steps: of the iteration, at least 1.

    Returns:
        (..., m, n).
    """
    x = matrices.reshape(-1, *matrices.shape[-2:])
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    m, n = sorted(x.shape[1:])
    tall = x.shape[1] > m  # X ← a X + X (b A + c A²) with A = Xᵀ X, which is the same and spares a transposed copy
    iterate = _iterated_apart if 2 * n > 3 * m and x.dtype != torch.bfloat16 else _iterated
    with torch.autocast(x.device.type, enabled=False):
        return iterate(x, tall, steps).view(matrices.shape)


def _precision(matrices: Tensor) -> torch.dtype:
    """The one in which they are orthogonalised soonest: bfloat16 where it is fast.

    But a processor without AMX is only one and a half times as fast in it, and float32 takes half of the operations,
    or fewer, where matrices are long (`_iterated_apart`).
    """
    m, n = sorted(matrices.shape[-2:])
    half = fast_bfloat16(matrices.device)
    if half and matrices.device.type == "cpu" and n > LONG * m:
        half = torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if half else torch.float32


def _iterated(x: Tensor, tall: bool, steps: int) -> Tensor:
    for _ in range(steps):
        gram = x.mT @ x if tall else x @ x.mT
        p = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
        x = torch.baddbmm(x, x, p, beta=A) if tall else torch.baddbmm(x, p, x, beta=A)
    return x


def _iterated_apart(x: Tensor, tall: bool, steps: int) -> Tensor:
    """The same for long matrices, which wait until all P = a I + b A + c A² are multiplied.

    Every P is a polynomial of the first A and commutes with it, so that the next A is P A P. That takes
    4 m² n + 34 m³ floating-point operations in five steps, instead of 20 m² n + 10 m³. It is not for bfloat16: what
    is small in A would drown in the rounding of what is large.
    """
    gram = x.mT @ x if tall else x @ x.mT
    p = product = _polynomial(gram)
    for _ in range(steps - 1):
        gram = p @ gram @ p
        p = _polynomial(gram)
        product = p @ product
    return x @ product if tall else product @ x


def _polynomial(gram: Tensor) -> Tensor:
    p = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
    p.diagonal(dim1=-2, dim2=-1).add_(A)
    return p
