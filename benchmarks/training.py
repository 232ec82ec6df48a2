"""Training: a network in `genzoo fit`'s Trainer, and in a bare PyTorch loop.

Ours is what `genzoo fit` runs: Lightning's Trainer with the progress bar, the CSV logger, the checkpoints and the
loop that it is given there; nothing is validated. The bare loop takes the same network, batches, precision and
optimiser, and does nothing that it need not. How much of the machine a step makes use of, two other rivals say: they
make as many multiplications, but as one large matrix product after another, or as 3×3 convolutions forwards and
backwards.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any
from unittest.mock import patch

import rich
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import data
from benchmarks.contest import Contest, Rival
from benchmarks.results import precision
from genzoo.callbacks import Forecast, Newest
from genzoo.progress import Progress
from genzoo.resuming import FitLoop
from genzoo.zoo import GAN, ZooModule
from genzoo.zoo.networks.linear import linear


@dataclass(frozen=True, eq=False)
class Case:
    """A network and what it is trained on.

    Args:
        name: of the contest.
        model: builds it.
        data: builds the datamodule.
        steps: of a short run and of a long one.
        options: of the Trainer.
        callbacks: builds those that it has besides the usual ones.
        precision: of the Trainer; empty: `precision()`.
    """

    name: str
    model: Callable[[], ZooModule]
    data: Callable[[], Any]
    steps: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], Sequence[Callback]] = tuple
    precision: str = ""

    @functools.cached_property
    def x(self) -> list[Tensor]:
        """Some batches, without labels."""
        found = islice(loader(self), 8)
        return [batch[0] if isinstance(batch, list | tuple) else batch for batch in found]

    def bare(self, wanted: float) -> Rival:
        """The bare loop."""
        return Rival("a bare loop", partial(bare_gan if isinstance(self.model(), GAN) else bare, self), wanted)

    def contest(self, *rivals: Rival) -> Contest:
        """Of ours with others."""
        return Contest("training", self.name, "step", partial(fit, self), rivals, self.steps, self.precision)


def fit(case: Case, steps: int) -> None:
    """Trains as `genzoo fit` does."""
    torch.manual_seed(0)
    folder = data.folder() / "run"
    bar = Progress(console_kwargs={"force_terminal": True})  # drawn, as in a terminal
    trainer = Trainer(
        accelerator="cpu",
        precision=case.precision or precision(),  # type: ignore[arg-type]
        max_steps=steps,
        max_epochs=-1,
        default_root_dir=folder,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[bar, Forecast(), Newest(folder / "checkpoints"), *case.callbacks()],
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        **case.options,
    )
    FitLoop.install(trainer)
    trainer.fit(case.model(), case.data())
    rich.reconfigure()  # the console is everybody's


def bare(case: Case, steps: int, *, step: bool = True) -> None:
    """Trains in the plainest loop; without its optimiser, unless `step`."""
    model, clip = case.model(), case.options.get("gradient_clip_val")
    optimizer: torch.optim.Optimizer = model.configure_optimizers()
    for batch in islice(loader(case), steps):
        optimizer.zero_grad()
        backward(model, batch)
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if step:
            optimizer.step()


def bare_gan(case: Case, steps: int) -> None:
    """The plainest loop of two networks in turns, each with its own loss."""
    model = case.model()
    (of_generator, of_discriminator), _ = model.configure_optimizers()
    for step, (x, _) in enumerate(islice(loader(case), steps)):
        turn(model, of_generator, of_discriminator, x, step)


def turn(
    model: Any,
    of_generator: torch.optim.Optimizer,
    of_discriminator: torch.optim.Optimizer,
    x: Tensor,
    step: int,
    cast: Callable[[], torch.autocast] | None = None,
) -> None:
    """A step of the discriminator and one of the generator, on the same samples; None casts as the contests do."""
    cast = cast or autocast
    with cast():
        made = model.generate(model.draw_latents(len(x)))
    for optimizer, losses in (
        (of_discriminator, partial(model.discriminator_loss, step=step, made=made)),
        (of_generator, partial(model.generator_loss, made=made)),
    ):
        model.discriminator.requires_grad_(optimizer is of_discriminator)
        optimizer.zero_grad()
        with cast():
            loss = sum(value.mean() for value in losses(x, None).values())
        loss.backward()
        optimizer.step()


def loader(case: Case) -> Iterator[Any]:
    """The batches that training takes, epoch after epoch."""
    module = case.data()
    module.setup("fit")
    while True:
        yield from module.train_dataloader()


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision() != "32-true")


def backward(model: ZooModule, batch: Any) -> None:
    x, y = batch if isinstance(batch, list | tuple) else (batch, None)
    with autocast():
        loss = model.objective(x, y)["loss"].mean()
    loss.backward()


# ---- what the machine can do

MATRIX = 1024  # rows and columns
IMAGES, CHANNELS, SIDE = 64, 128, 14  # of the convolutions


@functools.cache
def operations(case: Case) -> int:
    """Floating-point operations of a step, as PyTorch counts them: those of products and convolutions.

    It knows those of its own products alone, so for once all are made by them.
    """
    model = case.model()
    with patch("genzoo.zoo.networks.linear.mkl_is_slow", lambda: False), FlopCounterMode(display=False) as counter:
        backward(model, case.x[0])
    return counter.get_total_flops()


def as_matrices(case: Case, steps: int) -> None:
    """So many steps' operations as products of square matrices, by the faster of PyTorch's two libraries."""
    dtype = torch.float32 if precision() == "32-true" else torch.bfloat16
    a, b = torch.randn(2, MATRIX, MATRIX).to(dtype)
    times = max(1, round(steps * operations(case) / (2 * MATRIX**3)))
    with torch.no_grad():
        for _ in range(times):
            linear(a, b)


def as_convolutions(case: Case, steps: int) -> None:
    """So many steps' operations as 3×3 convolutions, forwards and backwards: each is three products."""
    dtype = torch.float32 if precision() == "32-true" else torch.bfloat16
    conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False).to(dtype).to(memory_format=torch.channels_last)
    x = torch.randn(IMAGES, CHANNELS, SIDE, SIDE).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    each = 3 * 2 * 9 * CHANNELS**2 * IMAGES * SIDE**2
    for _ in range(max(1, round(steps * operations(case) / each))):
        y = conv(x)
        y.backward(y.detach())
        x.grad = conv.weight.grad = None
