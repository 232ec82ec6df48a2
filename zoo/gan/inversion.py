"""From data back to latents, and what follows from it: interpolation, completion and anomaly scores.

A generator has no encoder. The latent of a datum is searched for: the most probable one if x = G(z) + σ ε with
z ~ N(0, I), which minimises

    E(z) = ‖x − G(z)‖² / 2σ² + ‖z‖² / 2

over z. With x known in part the first term runs over the known dimensions (Yeh et al. 2017), and what remains of it
tells how far a datum is from everything the generator makes (AnoGAN, Schlegl et al. 2017).
"""

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from genzoo.zoo.mixins import CompletionMixin, check_ends, great_circle
from genzoo.zoo.randomness import Generator, PerDatum


class InversionMixin(CompletionMixin):
    """Gives `invert`, `interpolate`, `complete` and the residual to a family that maps latents to data.

    The search is deterministic: the best few of a fixed set of latents are the starts of as many descents (Adam, the
    step size falling to zero), all data at once, none heeding another; call it in evaluation mode.
    """

    shape: tuple[int, ...]
    latent_dim: int

    #: σ, in the data's units; of points, in which each column is standardised
    inversion_noise = 0.1
    #: how many latents are looked at first, how many of the best are followed, and over how many steps of what size
    inversion_pool, inversion_starts, inversion_steps, inversion_rate = 256, 3, 60, 0.2

    @abstractmethod
    def draw_latents(self, num: int, labels: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """(num, d), of which the first `latent_dim` numbers are z and the rest say the class."""

    # from ZooModule
    standardised: Callable[[Tensor], Tensor]

    @abstractmethod
    def made(self, latents: Tensor) -> Tensor:
        """(B, *shape) from latents, as `render`, but points standardised."""

    @abstractmethod
    def render(self, latents: Tensor) -> Tensor:
        """(B, *shape) from latents, in the data's range and units though not on its grid, differentiable."""

    @abstractmethod
    def on_grid(self, x: Tensor) -> Tensor:
        """The nearest data."""

    @torch.no_grad()
    def invert(self, x: Tensor) -> Tensor:
        """The latent of each datum, by the search described above.

        Args:
            x: (B, *shape).

        Returns:
            (B, d): z, followed by the one-hot class if the model is conditional.
        """
        x = self.check(x)  # type: ignore[attr-defined]
        pool = self._pool(1, torch.Generator().manual_seed(0))
        return self._search(x, torch.ones_like(x, dtype=torch.bool), pool)[0]

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        """Along the great circle between the latents of a and of b, where z is typical all the way.

        A conditional model goes straight from one one-hot class to the other; between classes it has learned nothing.

        Args:
            a: (B, *shape), the beginnings.
            b: (B, *shape), the ends.
            steps: at least 2, both ends included.

        Returns:
            (steps, B, *shape), on the data's grid.
        """
        check_ends(a, b, steps)
        start, end = self.invert(a), self.invert(b)
        path = [self._between(start, end, i / (steps - 1)) for i in range(steps)]
        return torch.stack([self.on_grid(self.render(latents)) for latents in path])

    def fill_in(
        self,
        x: Tensor,
        known: Tensor,
        num_samples: int,
        generator: Generator | None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """What the generator makes at latents found from the known dimensions, each from starts of its own.

        They are modes of the posterior p(z | known) rather than draws from it: completions differ where the search
        ends in different ones, and say too little of what else could be there. A datum of which nothing is known is
        a plain sample. Of data with labels the search stays within their class; without, it takes whichever is near.
        """
        if labels is None:
            found = self._search(x, known, self._pool(num_samples, generator))
        else:
            classes = labels.unique().tolist()
            places = [(labels == label).nonzero().flatten() for label in classes]
            parts = [
                self._search(x[own], known[own], self._pool(num_samples, generator, labels.new_tensor(label)))
                for label, own in zip(classes, places, strict=True)
            ]
            found = torch.cat(parts, 1)[:, torch.cat(places).argsort()]
        nothing = ~known.flatten(1).any(1)
        if bool(nothing.any()):
            given = None if labels is None else labels.repeat(num_samples)
            drawn = self.draw_latents(num_samples * len(x), given, generator).view_as(found)
            found = torch.where(nothing[:, None], drawn, found)
        return self.on_grid(self.render(found.flatten(0, 1))).unflatten(0, found.shape[:2]).to(x.dtype)

    @torch.no_grad()
    def residual(self, x: Tensor) -> Tensor:
        """‖x − G(z)‖² at the latent of x, (B,), in squared units of the data; of points, standardised."""
        return (self.standardised(x) - self.made(self.invert(x))).square().flatten(1).sum(1)

    # ---- the search

    def _pool(self, num_samples: int, generator: Generator | None, label: Tensor | None = None) -> Tensor:
        """Latents to begin with, all of one class if a label is given: (num_samples, pool, d)."""
        if isinstance(generator, PerDatum):  # which asks for results that depend on the datum alone
            generator = torch.Generator().manual_seed(0)
        num = num_samples * self.inversion_pool
        labels = None if label is None else label.expand(num)
        return self.draw_latents(num, labels, generator).unflatten(0, (num_samples, -1))

    @torch.inference_mode(False)  # a measurement runs in inference mode, where nothing has a gradient
    @torch.no_grad()
    def _search(self, x: Tensor, known: Tensor, pool: Tensor) -> Tensor:
        """The best latent for each datum from each pool: (num_samples, B, d)."""
        x, known, pool = x.clone(), known.clone(), pool.clone()
        target = torch.where(known, self.standardised(x), 0.0)
        starts = []
        for latents in pool:
            made = self.made(latents).to(x.dtype).flatten(1)
            distance = known.flatten(1).to(x.dtype) @ made.square().T - 2 * target.flatten(1) @ made.T  # + ‖x‖²
            nearest = distance.topk(min(self.inversion_starts, len(latents)), largest=False).indices
            starts.append(latents[nearest].transpose(0, 1))  # (starts, B, d)
        found = torch.stack(starts)
        found, energy = self._descend(found.flatten(0, 2), target, known, math.prod(found.shape[:2]))
        energy, found = energy.view(len(pool), -1, len(x)), found.view(len(pool), -1, len(x), pool.shape[-1])
        best = energy.argmin(1)
        return torch.stack([f[b, torch.arange(len(x))] for f, b in zip(found, best, strict=True)])

    def _descend(self, latents: Tensor, target: Tensor, known: Tensor, repeats: int) -> tuple[Tensor, Tensor]:
        """Latents and their energies after the descent."""
        target, known = (t.expand(repeats, *t.shape).flatten(0, 1) for t in (target, known))
        z, classes = latents[:, : self.latent_dim].clone().requires_grad_(), latents[:, self.latent_dim :]

        def energy() -> Tensor:
            made = self.made(torch.cat([z, classes], 1)).to(target.dtype)
            residual = torch.where(known, target - made, 0.0).flatten(1)
            return residual.square().sum(1) / (2 * self.inversion_noise**2) + 0.5 * z.square().sum(1)

        optimizer = torch.optim.Adam([z])
        for step in range(self.inversion_steps):
            optimizer.param_groups[0]["lr"] = self.inversion_rate * (1 - step / self.inversion_steps)
            with torch.enable_grad():
                (z.grad,) = torch.autograd.grad(energy().sum(), z)
            optimizer.step()
        return torch.cat([z.detach(), classes], 1), energy()

    def _between(self, a: Tensor, b: Tensor, weight: float) -> Tensor:
        z = great_circle(a[:, : self.latent_dim], b[:, : self.latent_dim], weight)
        return torch.cat([z, torch.lerp(a[:, self.latent_dim :], b[:, self.latent_dim :], weight)], 1)
