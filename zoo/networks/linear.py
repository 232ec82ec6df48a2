"""Linear layers that run at the processor's full rate, also where PyTorch's own do not.

On a CPU PyTorch multiplies float32 matrices by MKL, which keeps its 512-bit kernels for Intel's processors; on
another one's it takes half the registers, and up to twice the time (Zen 5; a tenth more on Zen 4). PyTorch also has
oneDNN, which it convolves with, and whose kernels ask what a processor can do and not who made it. In bfloat16 it is
oneDNN anyway.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # which is older
# It takes longer to set oneDNN up than to multiply, where there are fewer multiplications and fewer weights than so
# many: these take as long to fetch for one datum as for all.
WORTH_IT, MANY_WEIGHTS = 2**22, 400_000


class Linear(nn.Linear):
    """`torch.nn.Linear` by the faster of two libraries."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, as `torch.nn.functional.linear`, to the rounding of the last digit.

    Args:
        x: (..., in_features).
        weight: (out_features, in_features).
        bias: (out_features,), or None.

    Returns:
        (..., out_features).
    """
    if is_exporting():  # to where there may be no oneDNN
        return F.linear(x, weight, bias)
    worth_it = weight.numel() >= MANY_WEIGHTS or x.numel() * len(weight) >= WORTH_IT
    single = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (worth_it and single and x.device.type == "cpu" and mkl_is_slow()):
        return F.linear(x, weight, bias)
    return multiplied(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], len(weight))


def multiplied(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X Wᵀ + b of matrices, by oneDNN; with its derivative, where one is asked for."""
    return Product.apply(x, weight, bias) if torch.is_grad_enabled() else product(x, weight, bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X Wᵀ + b of matrices, by oneDNN, without its derivative."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class Product(torch.autograd.Function):
    """X Wᵀ + b of matrices, by oneDNN. Its derivatives are products too, so it has derivatives of every order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(N, in_features), (out_features, in_features) and (out_features,) to (N, out_features)."""
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """∂X = ∂Y W, ∂W = ∂Yᵀ X, ∂b = Σ_n ∂Y_n.

        Both factors of ∂W are transposed, and oneDNN copies the left one: so that is the narrower of ∂Y and X.
        """
        (x, weight), gradient = ctx.saved_tensors, gradients[0].contiguous()
        to_x, to_weight, to_bias = ctx.needs_input_grad
        of_weight = None
        if to_weight and gradient.shape[1] <= x.shape[1]:
            of_weight = multiplied(gradient.t(), x.t(), None)
        elif to_weight:
            of_weight = multiplied(x.t(), gradient.t(), None).t()
        return (
            multiplied(gradient, weight.t(), None) if to_x else None,
            of_weight,
            gradient.sum(0) if to_bias else None,
        )


@cache
def mkl_is_slow() -> bool:
    """Whether the processor has AVX-512 and is not Intel's, and PyTorch has oneDNN to fall back on."""
    cpuinfo = Path("/proc/cpuinfo")
    return (
        torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and torch.backends.mkldnn.is_available()
        and cpuinfo.exists()
        and "GenuineIntel" not in cpuinfo.read_text()
    )
