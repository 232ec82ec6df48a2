"""The probability flow: a map between noise and data, with a density (Song et al. 2021, section 4.3).

The ODE dx = x̂₀ dα + ε̂ dσ has the same solutions for every schedule, up to a factor. In the coordinates
w = x/√(α² + σ²), which have unit variance if the data have it, and with u = ln(σ/α) for a time, it is always

    dw/du = a (a w − D),    a = α/√(α² + σ²) = 1/√(1 + e²ᵘ),

where D is the denoiser's estimate: smooth from the least noise to the most, and zero for data from N(0, I). Of a
schedule nothing is left in it, so the flow may begin with less noise than a sampler ever sees. As many steps are
taken for all data, so that what the flow makes of one does not depend on its batch.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Estimate = Callable[[Tensor, float], Tensor]  # (w, u) to D
Rate = Callable[[Tensor, float], tuple[Tensor, Tensor]]  # (w, u) to dw/du and its divergence


class ProbabilityFlow:
    """The flow of a denoiser, from the least noise, which is taken for none, to the most, where w is N(0, I).

    Args:
        denoiser: D(w, u), the data that it sees in w at the noise e^u; differentiable in w for `log_prob`.
        ratios: the most and the least σ/α.
        steps: of the classical Runge-Kutta method, of four evaluations each.
    """

    def __init__(self, denoiser: Estimate, ratios: tuple[float, float], steps: int) -> None:
        self.denoiser, self.steps = denoiser, steps
        self.noise_end, self.data_end = map(math.log, ratios)

    def encode(self, x: Tensor) -> Tensor:
        """The noise z that data x become, (B, *shape) both; N(0, I) if the model is right."""
        return self._integrate(self._speed, kept(self.data_end) * x, self.data_end, self.noise_end)[0]

    def decode(self, z: Tensor) -> Tensor:
        """The data x that noise z becomes: the inverse of `encode`."""
        return self._integrate(self._speed, z, self.noise_end, self.data_end)[0] / kept(self.data_end)

    def log_prob(self, x: Tensor, probe: Tensor | None = None) -> Tensor:
        """ln p(x) = ln N(w; 0, I) + ∫ div(dw/du) du + D ln a, for w at the end of most noise and a at the other.

        Args:
            x: (B, *shape).
            probe: (B, *shape) of ±1, with which vᵀ J v estimates the divergence tr J without bias (Hutchinson 1990);
                None computes it exactly, by as many derivatives as there are dimensions.

        Returns:
            (B,) float64, nats.
        """
        with torch.inference_mode(False), torch.enable_grad():
            probe = None if probe is None else probe.clone()  # they may come from inference mode

            def rate(w: Tensor, u: float) -> tuple[Tensor, Tensor]:
                w = w.detach().requires_grad_()
                speed, _ = self._speed(w, u)
                return speed.detach(), _divergence(speed, w, probe)

            w, gained = self._integrate(rate, kept(self.data_end) * x, self.data_end, self.noise_end)
        z = w.double().flatten(1)
        constant = math.log(2 * math.pi) / 2 - math.log(kept(self.data_end))
        return gained - z.square().sum(1) / 2 - z.shape[1] * constant

    def _speed(self, w: Tensor, u: float) -> tuple[Tensor, Tensor]:
        a = kept(u)
        return a * (a * w - self.denoiser(w, u)), torch.zeros((), dtype=torch.float64, device=w.device)

    def _integrate(self, rate: Rate, w: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        """w at the end, and the integral of the divergence on the way."""
        h, total = (end - start) / self.steps, torch.zeros(len(w), dtype=torch.float64, device=w.device)
        for i in range(self.steps):
            u = start + i * h
            one, d_one = rate(w, u)
            two, d_two = rate(w + h / 2 * one, u + h / 2)
            three, d_three = rate(w + h / 2 * two, u + h / 2)
            four, d_four = rate(w + h * three, u + h)
            w = w + h / 6 * (one + 2 * two + 2 * three + four)
            total = total + h / 6 * (d_one + 2 * d_two + 2 * d_three + d_four)
        return w, total


def kept(u: float) -> float:
    """a = α/√(α² + σ²) where u = ln(σ/α): how much of the datum is in w."""
    return 1 / math.hypot(1, math.exp(u))


def _divergence(speed: Tensor, w: Tensor, probe: Tensor | None) -> Tensor:
    """(B,) float64."""
    if probe is not None:
        (product,) = torch.autograd.grad(speed, w, probe)
        return (product * probe).double().flatten(1).sum(1)
    columns = speed.flatten(1).unbind(1)
    rows = [torch.autograd.grad(column.sum(), w, retain_graph=True)[0].flatten(1) for column in columns]
    return torch.stack([row[:, i] for i, row in enumerate(rows)]).double().sum(0)
