"""The probability flow: a map between noise and data, with a density (Song et al. 2021, section 4.3).

The ODE dx = x̂₀ dα + ε̂ dσ has the same solutions for every schedule, up to a factor. In the coordinates
w = x/√(α² + σ²), which have unit variance if the data have it, and with u = ln(σ/α) for a time, it is always

    dw/du = a (a w − D),    a = α/√(α² + σ²),

where D is the denoiser's estimate: smooth from the least noise to the most, and zero for data from N(0, I). As many
steps are taken for all data, so that what the flow makes of one does not depend on its batch.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genzoo.zoo.diffusion.schedules import RATIOS, Schedule
from genzoo.zoo.diffusion.solvers import Denoiser

Rate = Callable[[Tensor, float], tuple[Tensor, Tensor]]  # (w, u) to dw/du and its divergence


class ProbabilityFlow:
    """The flow of a denoiser, from the least noise, which is taken for none, to the most.

    Args:
        denoiser: D(x, t); differentiable in x for `log_prob`.
        schedule: of the corruption.
        steps: of the classical Runge-Kutta method, of four evaluations each.
        ratios: the most and the least σ/α, as far as the schedule goes.
    """

    def __init__(
        self, denoiser: Denoiser, schedule: Schedule, steps: int, ratios: tuple[float, float] = RATIOS
    ) -> None:
        self.denoiser, self.schedule, self.steps = denoiser, schedule, steps
        most, least = (-schedule(torch.tensor([1.0, schedule.t_min])).log_snr / 2).tolist()
        self.data_end, self.noise_end = max(least, math.log(ratios[1])), min(most, math.log(ratios[0]))
        _, self.data_scale, _ = self._at(self.data_end)
        t, _, norm = self._at(self.noise_end)
        self.noise_std = schedule.prior_std(t) / norm

    def encode(self, x: Tensor) -> Tensor:
        """The noise z that data x become, (B, *shape) both; N(0, I) if the model is right."""
        w, _ = self._integrate(self._speed, self.data_scale * x, self.data_end, self.noise_end)
        return w / self.noise_std

    def decode(self, z: Tensor) -> Tensor:
        """The data x that noise z becomes: the inverse of `encode`."""
        w, _ = self._integrate(self._speed, self.noise_std * z, self.noise_end, self.data_end)
        return w / self.data_scale

    def log_prob(self, x: Tensor, probe: Tensor | None = None) -> Tensor:
        """ln p(x) = ln N(w; 0, s²) + ∫ div(dw/du) du + D ln a, for w at the end of most noise and a at the other.

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

            w, gained = self._integrate(rate, self.data_scale * x, self.data_end, self.noise_end)
        z = w.double().flatten(1) / self.noise_std
        constant = math.log(math.sqrt(2 * math.pi) * self.noise_std / self.data_scale)
        return gained - z.square().sum(1) / 2 - z.shape[1] * constant

    def _at(self, u: float) -> tuple[Tensor, float, float]:
        """The time, a, and √(α² + σ²)."""
        t = self.schedule.time(torch.tensor(-2 * u, dtype=torch.float64))
        noise = self.schedule(t)
        norm = math.hypot(float(noise.alpha), float(noise.sigma))
        return t, float(noise.alpha) / norm, norm

    def _speed(self, w: Tensor, u: float) -> tuple[Tensor, Tensor]:
        t, a, norm = self._at(u)
        return a * (a * w - self.denoiser(norm * w, t)), torch.zeros((), dtype=torch.float64, device=w.device)

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


def _divergence(speed: Tensor, w: Tensor, probe: Tensor | None) -> Tensor:
    """(B,) float64."""
    if probe is not None:
        (product,) = torch.autograd.grad(speed, w, probe)
        return (product * probe).double().flatten(1).sum(1)
    columns = speed.flatten(1).unbind(1)
    rows = [torch.autograd.grad(column.sum(), w, retain_graph=True)[0].flatten(1) for column in columns]
    return torch.stack([row[:, i] for i, row in enumerate(rows)]).double().sum(0)
