"""Samples and completions of masked diffusion: in which step a sampler fills in what.

An entry i that is given a number v_i, uniform in [0, 1), is masked as long as v_i < m(t): backwards in time, where
the masked share m falls, that is the moment at which it is filled in. What is known beforehand is never masked.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from genzoo.zoo.checks import check_count
from genzoo.zoo.diffusion.denoising import check_guidance
from genzoo.zoo.diffusion.masking import MaskingSchedule, masked_share, rank
from genzoo.zoo.mixins import CompletionMixin, ConditionalMixin
from genzoo.zoo.randomness import Generator, choose_component, uniform

Unmasking = Literal["first-hitting", "ancestral", "confidence"]


class UnmaskingMixin(ConditionalMixin, CompletionMixin):
    """`sample`, `sample_path` and `complete` of a model that states the `logits` of what is masked."""

    #: how much chance there is at first in which entries the confidence-based sampler fills in
    choice_temperature = 4.5

    schedule: MaskingSchedule
    sampler: Unmasking
    steps: int
    guidance: float
    codes: Callable[[Tensor], Tensor]
    data: Callable[[Tensor], Tensor]
    logits: Callable[..., Tensor]

    # from ZooModule
    shape: tuple[int, ...]
    num_dims: int
    like: Tensor

    @property
    @abstractmethod
    def mask(self) -> int:
        """The symbol of what is masked."""

    @property
    def network_evaluations(self) -> int:
        """The steps of the model's own sampler; with guidance twice as many, as it asks for no class, too."""
        return self._own_steps * (1 if self.guidance == 1 else 2)

    @property
    def _own_steps(self) -> int:
        return self.steps if self.sampler == "ancestral" else min(self.steps, self.num_dims)

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        *,
        labels: Tensor | None = None,
        generator: Generator | None = None,
        sampler: Unmasking | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """From masks to data.

        Args:
            num_samples: how many.
            labels: (num_samples,) for a conditional model; None draws them from p(y).
            generator: of all noise.
            sampler: None takes the model's.
            steps: None takes the model's. More steps are closer to the model's distribution.
            guidance: of a conditional model; above 1, samples are more typical of their class, and less diverse. None
                takes the model's.

        Returns:
            (num_samples, *shape), in the data's range and on its grid.

        Raises:
            ValueError: on labels or guidance that do not fit the model, or a sampler or steps that there are not.
        """
        codes, _ = self._drawn(num_samples, labels, generator, sampler, steps, guidance)
        return self.data(codes)

    @torch.no_grad()
    def sample_path(
        self, num_samples: int, *, num_frames: int, labels: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """(num_frames, N, *shape), evenly spread over the steps of `sample`: what it has by then; 0 elsewhere."""
        check_count("num_frames", num_frames)
        codes, turns = self._drawn(num_samples, labels, generator)
        x, steps = self.data(codes), self._own_steps
        counts = [round(steps * (k + 1) / num_frames) for k in range(num_frames)]
        return torch.stack([x.masked_fill(turns >= count, 0) for count in counts])

    def _drawn(
        self,
        num_samples: int,
        labels: Tensor | None,
        generator: Generator | None,
        sampler: Unmasking | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Codes, and the steps in which they were drawn."""
        guidance = self.guidance if guidance is None else guidance
        check_guidance(guidance, self)
        sampler, steps = self._checked_sampler(sampler, steps)
        labels = self.labels_to_sample(labels, num_samples, self.like, generator)
        nothing = torch.full((num_samples, *self.shape), self.mask, device=self.like.device)
        return self.unmask(nothing, labels, generator, sampler, steps, most=self.num_dims, guidance=guidance)

    def _checked_sampler(self, sampler: Unmasking | None, steps: int | None) -> tuple[Unmasking, int]:
        sampler = self.sampler if sampler is None else sampler
        if sampler not in get_args(Unmasking):
            raise ValueError(f"sampler={sampler!r}: choose one of {', '.join(map(repr, get_args(Unmasking)))}.")
        steps = self.steps if steps is None else steps
        check_count("steps", steps)
        return sampler, int(steps)

    def unmask(
        self,
        symbols: Tensor,
        labels: Tensor | None,
        generator: Generator | None,
        sampler: Unmasking,
        steps: int,
        *,
        most: int,
        guidance: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Fills in what is masked.

        Args:
            symbols: (B, *shape), int64 in [0, levels], `levels` where masked.
            labels: as in `logits`.
            generator: of all noise.
            sampler: see the class.
            steps: of the sampler; of which those after the last masked entry are left out.
            most: how many entries of a datum are masked, at most.
            guidance: as in `logits`.

        Returns:
            (B, *shape) int64 in [0, levels), and the step in which each entry was filled in, from 0 on; −1: in none.
        """
        if sampler == "confidence":
            return self._surest_first(symbols, labels, generator, steps, most, guidance)
        masked = (symbols == self.mask).flatten(1)
        order, values = (uniform(symbols.shape, like=self.like, generator=generator) for _ in range(2))
        if sampler == "ancestral":
            turns = ancestral_turns(masked, order.flatten(1), steps, self.schedule)
        else:
            steps = min(steps, most)
            turns = first_hitting_turns(masked, order.flatten(1), steps)
        turns = turns.view_as(symbols)
        for step in range(steps):
            drawn, _ = choose_component(self.logits(symbols, labels, guidance=guidance), values)
            symbols = torch.where(turns == step, drawn.squeeze(1), symbols)
        return symbols, turns

    def _surest_first(
        self,
        symbols: Tensor,
        labels: Tensor | None,
        generator: Generator | None,
        steps: int,
        most: int,
        guidance: float,
    ) -> tuple[Tensor, Tensor]:
        """MaskGIT's sampler (Chang et al. 2022): every masked entry is drawn, and those kept that are likeliest.

        Likely is ln p and Gumbel noise, of a temperature that falls to 0 in as many steps as a datum takes; after
        each of them a share m of it is still masked, at least an entry less than before.
        """
        count, turns = (symbols == self.mask).flatten(1).sum(1, keepdim=True), torch.full_like(symbols, -1)
        for step in range(min(steps, most)):
            values, chance = (uniform(symbols.shape, like=self.like, generator=generator) for _ in range(2))
            log_p = self.logits(symbols, labels, guidance=guidance).log_softmax(1)
            drawn, _ = choose_component(log_p, values)
            to_come = (1 - (step + 1) / count.clamp(1, steps).double()).clamp_min(0)  # of the steps
            gumbel = -(-chance.clamp_min(torch.finfo(chance.dtype).tiny).log()).log().flatten(1)
            surety = log_p.gather(1, drawn).flatten(1) + self.choice_temperature * to_come * gumbel
            masked = (symbols == self.mask).flatten(1)
            before = masked.sum(1, keepdim=True)
            left = masked_share(self.schedule, to_come) * count + 1e-6  # which rounding would take below a whole
            after = torch.minimum(left.floor().long(), before - 1)
            now = rank(-surety.masked_fill(~masked, -math.inf)) < before - after
            now = (now & masked).view_as(symbols)
            symbols, turns = torch.where(now, drawn.squeeze(1), symbols), turns.masked_fill(now, step)
        for _ in range(2 * (min(steps, symbols[0].numel()) - min(steps, most))):  # the same for each datum, whoever
            uniform(symbols.shape, like=self.like, generator=generator)  # it is with, and what comes next, too
        return symbols, turns

    # ---- completions

    def fill_in(
        self,
        x: Tensor,
        known: Tensor,
        num_samples: int,
        generator: Generator | None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """By the model's own sampler, from what is known, wherever it is.

        Where a conditional model is given no labels, it is answered by the network of "no class".
        """
        most = int((~known).flatten(1).sum(1).max())
        symbols = self.codes(x).masked_fill(~known, self.mask).expand(num_samples, *x.shape).flatten(0, 1)
        given = None if labels is None else labels.repeat(num_samples)
        codes, _ = self.unmask(symbols, given, generator, self.sampler, self.steps, most=most)
        return self.data(codes).unflatten(0, (num_samples, len(x)))


def first_hitting_turns(masked: Tensor, noise: Tensor, steps: int) -> Tensor:
    """In which step each entry is filled in: one after another, in any order as likely as another.

    In continuous time no two entries are filled in at once, and since the network is not told the time, it does not
    matter when they are (Zheng et al. 2025, "Masked diffusion models are secretly time-agnostic masked models"). So
    where there are as many steps as masked entries, nothing is approximated. Where there are fewer, each fills in
    as many as another, but for one.

    Args:
        masked: (B, D), bool: what is to be filled in.
        noise: (B, D), uniform in [0, 1).
        steps: at least 1.

    Returns:
        (B, D) int64, from 0 on; −1 where not masked.
    """
    count = masked.sum(1, keepdim=True)
    turns = rank(noise.masked_fill(~masked, 2)) * count.clamp_max(steps) // count.clamp_min(1)
    return torch.where(masked, turns, -1)


def ancestral_turns(masked: Tensor, noise: Tensor, steps: int, schedule: MaskingSchedule) -> Tensor:
    """In which step each entry is filled in, where time goes from 1 to 0 in equal steps.

    From t to s an entry that is still masked is filled in with probability (m(t) − m(s)) / m(t) (Sahoo et al. 2024,
    eq. 6): it is if m(s) ≤ v < m(t). Arguments and result as in `first_hitting_turns`.
    """
    times = torch.arange(steps + 1, dtype=torch.float64, device=noise.device) / steps
    later = torch.searchsorted(masked_share(schedule, times).to(noise.dtype), noise, right=True).clamp_max(steps)
    return torch.where(masked, steps - later, -1)
