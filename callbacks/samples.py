"""What the model draws, writes or says, while it trains."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from genzoo.callbacks.at_validation import AtValidation
from genzoo.metrics.data import data_of
from genzoo.zoo.checks import check_count
from genzoo.zoo.drawing import draw, seeded, supported
from genzoo.zoo.hub.run_folder import run_folder
from genzoo.zoo.interface import Completes, HasCodes, HasLatents, Samples
from genzoo.zoo.length import has_validations
from genzoo.zoo.media import can_render, captions_of, labels_to_show, render
from genzoo.zoo.texts import PADDING
from genzoo.zoo.value_range import (
    UNIT,
    ValueRange,
    checked_range,
    contradicts,
    in_words,
    plain_range,
    range_of,
    to_unit,
)


class SampleLogger(AtValidation):
    """Shows samples from fixed noise, and whatever else the model can do, while it trains and at the end.

    * `samples`: `sample(num_samples)`, from the same seed every time, so that the eye follows one set of
      samples; of a conditional model whose classes have names each class in turn, with its name below.
    * `reconstructions`: images above their reconstructions (models with latents or codes).
    * `completions`: images of which the left half (then the top half) is known, and completions below them; sounds
      and texts of which the first half is known, each followed by one completion.
    * `interpolations`: from one image to another along each row (models with latents).

    Each is written to `<run folder>/samples/<kind>-<step>` and sent to every WandbLogger and TensorBoardLogger of the
    Trainer under its kind's name: images, and points as a picture of where they lie, as .png; sounds, with a short
    pause between, as .wav; tokens as .txt (`media.render`). Training's random state is left as it was. When,
    `AtValidation` says: at validations, without them at the end of training epochs, and at the end of the run; with
    averaged weights, if there is an `EMA`.

    Args:
        num_samples: how many samples.
        num_examples: how many validation data (training data, in a run without validations) to reconstruct, complete
            and interpolate between; 0 for none.
        every_n_epochs: at every n-th epoch's validation, and at the end.
        seed: of the noise.
        value_range: the values of images that are drawn black and white; None finds out what they are: as the data
            are, or [−1, 1] where the samples plainly are in it.

    Raises:
        ValueError: before training, if the module can do none of this; and if samples are plainly in another range
            than the data that are drawn beside them.
    """

    def __init__(
        self,
        num_samples: int = 64,
        num_examples: int = 8,
        every_n_epochs: int = 1,
        seed: int = 0,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(every_n_epochs)
        check_count("SampleLogger: num_samples", num_samples)
        check_count("SampleLogger: num_examples", num_examples, 0)
        check_count("SampleLogger: seed", seed, 0)
        self.num_samples = num_samples
        self.num_examples = num_examples
        self.seed = seed
        self.value_range = checked_range(value_range, "SampleLogger")
        self._examples: Tensor | None = None
        self._data_range: tuple[tuple[int, ...], ValueRange] | None = None  # of data of that shape
        self._range = UNIT  # that was used, and said, last

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a module that has nothing to show."""
        if not isinstance(pl_module, Samples | Completes | HasLatents | HasCodes):
            raise ValueError(
                f"SampleLogger: {type(pl_module).__name__} has no method to show anything with. Give it"
                " `sample(num_samples, *, generator=None)`, or take the callback away."
            )

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the first data of the first validation: the same examples are shown every time."""
        self._keep(pl_module, batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the range of the first data; in a run without validations they are what is shown, too."""
        if batch_idx == 0:
            self._keep(pl_module if not has_validations(trainer) else None, batch)

    def _keep(self, module: LightningModule | None, batch: Any) -> None:
        x = batch.get("x") if isinstance(batch, Mapping) else data_of(batch)
        if not isinstance(x, Tensor):  # a module of one's own may train on anything
            return
        if self._data_range is None:
            found = range_of(x)
            self._data_range = None if found is None else (tuple(x.shape[1:]), found)
        if self._examples is None and self.num_examples and isinstance(module, Completes | HasLatents | HasCodes):
            self._examples = x[: self.num_examples].detach().clone()

    @property
    def state_key(self) -> str:
        """Under which a checkpoint has the examples; a Trainer may have several of these callbacks."""
        options = ("num_samples", "num_examples", "every_n_epochs", "seed", "value_range")
        return self._generate_state_key(**{name: getattr(self, name) for name in options})

    def state_dict(self) -> dict[str, Any]:
        """The examples, which a resumed run goes on showing, and the range of the data."""
        return {"examples": self._examples, "data_range": self._data_range}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them over."""
        self._examples, self._data_range = state_dict["examples"], state_dict["data_range"]

    def act(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Draws on every rank, which keeps them in step, and writes on the first."""
        folder, step = run_folder(trainer) / "samples", trainer.global_step
        labels = labels_to_show(module, self.num_samples)
        for kind, x, columns in self._pages(module, labels):
            if not (trainer.is_global_zero and can_render(x)):
                continue
            captions = captions_of(module, labels) if kind == "samples" else None
            medium = render(x if x.ndim != 4 else to_unit(x, self._range), columns, module, captions)
            medium.write(folder / f"{kind}-{step:08d}{medium.suffix}")
            for logger in trainer.loggers:
                medium.send(logger, kind, step)
        return {}

    def _pages(self, module: LightningModule, labels: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """(kind, data in reading order, columns) for each capability of the module; samples of these classes."""
        samples = None
        if isinstance(module, Samples):
            sample = module.sample if labels is None else partial(module.sample, labels=labels)
            samples = draw(sample, self.num_samples, self.seed)
        self._find_range(samples)
        if samples is not None:
            yield "samples", samples, _columns(self.num_samples)
        if self._examples is None:
            return
        x = self._examples.to(module.device)
        if x.ndim == 4:
            yield from self._pages_of_images(module, x)
        elif isinstance(module, Completes) and can_render(x) and (x.ndim == 3 or x.dtype == torch.int64):
            known = first_half(x, -1)
            if x.dtype == torch.int64:  # of a text that is shorter than others nothing behind its end
                known &= x != PADDING
            (completed,) = self._complete(module, x, known, num_samples=1)
            yield "completions", torch.stack([x, completed], 1).flatten(0, 1), 2

    def _find_range(self, samples: Tensor | None) -> None:
        """The range that images are in, said where it is not [0, 1]."""
        shape, of_data = self._data_range or ((), UNIT)
        found = of_data if samples is None or shape == tuple(samples.shape[1:]) else UNIT
        if self.value_range is not None:
            found = self.value_range
        elif samples is not None and samples.ndim == 4 and contradicts(samples, found):
            own = plain_range(samples) or found
            if self._examples is not None:
                raise ValueError(
                    f"SampleLogger: the data are images in {in_words(found)}, but the samples in {in_words(own)}. Let"
                    " `sample` return images as the data are, or state `value_range` if both are right."
                )
            found = own
        if found != self._range:
            rank_zero_info(f"SampleLogger: images are drawn as values in {in_words(found)} (`value_range`).")
            self._range = found

    def _pages_of_images(self, module: LightningModule, x: Tensor) -> Iterator[tuple[str, Tensor, int]]:
        if isinstance(module, HasLatents | HasCodes):
            with seeded(self.seed):
                yield "reconstructions", torch.cat([x, module.reconstruct(x)]), len(x)
        if isinstance(module, Completes):
            blocks = []  # what is known (the rest grey), three completions, and the data themselves: five rows
            for known in (first_half(x, -1), first_half(x, -2)):
                completed = self._complete(module, x, known, num_samples=3)
                blocks.append(
                    torch.cat([torch.where(known, x, sum(self._range) / 2)[None], completed, x[None]]).flatten(0, 1)
                )
            yield "completions", torch.cat(blocks), len(x)
        if isinstance(module, HasLatents) and len(x) > 1:
            half = len(x) // 2
            with seeded(self.seed):
                paths = module.interpolate(x[:half], x[half : 2 * half], 10)
            yield "interpolations", paths.transpose(0, 1).flatten(0, 1), 10

    def _complete(self, module: Completes, x: Tensor, known: Tensor, num_samples: int) -> Tensor:
        with seeded(self.seed) as generator:
            options = supported(module.complete, num_samples=num_samples, generator=generator)
            return module.complete(x, known, **options)


def first_half(x: Tensor, axis: int) -> Tensor:
    """A mask of the first half along one axis."""
    known = torch.zeros_like(x, dtype=torch.bool)
    known.narrow(axis, 0, x.shape[axis] // 2).fill_(True)
    return known


def _columns(n: int) -> int:
    """A grid about as wide as it is high."""
    return max(1, round(n**0.5))
