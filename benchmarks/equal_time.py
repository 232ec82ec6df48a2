"""The same minutes, the same pictures: how good a model is, ours and the peers' as they come.

    python -m benchmarks.equal_time --minutes 5                     # OpenMoji's emoji, 32 × 32
    python -m benchmarks.equal_time --minutes 5 --root photos       # the pictures of a folder
    python -m benchmarks.equal_time genzoo diffusers                # of some of the rivals alone

Each trains for so many minutes of processor time on each thread: the clock's minutes on a machine with nothing else
to do, and as much work on one that has. Of each, 500 samples are held against the test pictures, in the features of
cifar10/classifier. The diffusion models have U-Nets of about two million parameters, and draw in 20 evaluations of
them: ours by the recipes' solver, the peers' by their DDIM, from the averaged weights where a peer averages them. The
GANs are that of images/gan, whose networks are our default, R3GAN's pair with the loss, the penalties, the rate and
the augmentation that it had there before, and PyTorch's example.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks import peers
from benchmarks.results import RESULTS, hardware, merge, slug, stamp
from benchmarks.training import turn
from genzoo.datamodules import EmojiDataModule, ImageFolderDataModule
from genzoo.memory import keep_memory
from genzoo.metrics import FeatureExtractor, FeatureStatistics, frechet_distance
from genzoo.metrics.data import Rows
from genzoo.precision import settled
from genzoo.zoo import GAN, R1, R2, DPMSolver, FlowMatching, Muon, NonSaturating, OneCycle, Relativistic

BATCH, SAMPLES, EVALUATIONS, SIDE = 64, 500, 20, 32
Sampler = Callable[[int], Tensor]  # images in [0, 1]


def batches(x: Tensor, seconds: float) -> Iterator[tuple[Tensor, float]]:
    """Random ones until the time is up, each with the share of it that has passed."""
    generator, start = torch.Generator().manual_seed(0), time.process_time()
    while (passed := (time.process_time() - start) / (seconds * torch.get_num_threads())) < 1:
        yield x[torch.randint(len(x), (BATCH,), generator=generator)], passed


def fastest() -> torch.autocast:
    """To the precision that `genzoo fit` chooses here."""
    return torch.autocast("cpu", torch.bfloat16, enabled=settled("cpu", None)[0] == "bf16-mixed")


def ours(x: Tensor, seconds: float) -> tuple[nn.Module, int, Sampler]:
    """Flow matching as the recipes train it, its one cycle as long as the time is."""
    model = FlowMatching(
        tuple(x.shape[1:]),
        256,
        width=64,
        multipliers=(1, 2, 2),
        attention=True,
        solver=DPMSolver(eta=1.0),
        steps=EVALUATIONS,
        optimizer=partial(Muon, weight_decay=1e-2, betas=(0.9, 0.99)),
    )
    optimizer: Any = model.configure_optimizers()
    schedule = OneCycle(optimizer, [2e-2, 1.5e-3], total_steps=10_001, pct_start=0.05, cycle_momentum=False)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    for steps, (data, passed) in zip(count(1), batches(x, seconds), strict=False):  # noqa: B007
        while schedule.last_epoch < int(10_000 * passed):
            schedule.step()
        optimizer.zero_grad()
        with fastest():
            loss = model.objective(data, None)["loss"].mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2000)
        optimizer.step()
        average.update_parameters(model)
    averaged = average.module.eval()
    return averaged, steps, averaged.sample


def theirs(x: Tensor, seconds: float) -> tuple[nn.Module, int, Sampler]:
    """denoising-diffusion-pytorch, with its Trainer's optimiser, learning rate and average."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    model = GaussianDiffusion(
        Unet(40, dim_mults=(1, 2, 2), channels=x.shape[1]), image_size=x.shape[2], sampling_timesteps=EVALUATIONS
    )
    optimizer, average = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99)), EMA(model, beta=0.995)
    for steps, (data, _) in zip(count(1), batches(x, seconds), strict=False):  # noqa: B007
        optimizer.zero_grad()
        model(data).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update()
    averaged = average.ema_model.eval()
    return model, steps, lambda n: averaged.sample(batch_size=n).clamp(0, 1)


def diffusers(x: Tensor, seconds: float) -> tuple[nn.Module, int, Sampler]:
    """diffusers, as its tutorial trains it."""
    from diffusers import DDIMScheduler

    model = peers.diffusers_unet(tuple(x.shape[1:]))
    steps = peers.diffusers_loop(model, batches(x, seconds))

    def sample(n: int) -> Tensor:
        solver = DDIMScheduler(num_train_timesteps=1000)
        solver.set_timesteps(EVALUATIONS)
        y = torch.randn(n, *x.shape[1:])
        for t in solver.timesteps:
            y = solver.step(model(y, t).sample, t, y).prev_sample
        return ((y + 1) / 2).clamp(0, 1)

    model.eval()
    return model, steps, sample


def gan(x: Tensor, seconds: float, rate: float = 2e-3, **options: Any) -> tuple[nn.Module, int, Sampler]:
    """A GAN as images/gan trains it, but for these options: at a falling rate, its generator averaged."""
    adam = partial(torch.optim.Adam, lr=rate, betas=(0.0, 0.99))
    model = GAN(
        tuple(x.shape[1:]),
        256,
        latent_dim=64,
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        **({"augment": ("translation",)} | options),
    )
    (of_generator, of_discriminator), _ = model.configure_optimizers()
    average = AveragedModel(model.generator, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    for steps, (data, passed) in zip(count(1), batches(x, seconds), strict=False):
        for optimizer in (of_generator, of_discriminator):
            optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * passed)) / 2
        turn(model, of_generator, of_discriminator, data, steps - 1, fastest)
        average.update_parameters(model.generator)
    model.generator = average.module
    return model.eval(), steps, model.sample


def example(x: Tensor, seconds: float) -> tuple[nn.Module, int, Sampler]:
    """PyTorch's example, its networks as wide as there."""
    generator, discriminator, steps = peers.dcgan_loop(
        (data for data, _ in batches(x, seconds)),
        peers.generator_of_the_example,
        peers.discriminator_of_the_example,
    )
    generator.eval()
    players = nn.ModuleList([generator, discriminator])
    return players, steps, lambda n: (generator(torch.randn(n, peers.LATENT_DIM)) + 1) / 2


OURS = partial(gan, loss=NonSaturating(), regularisers=[R1(1.0, every=8)])
R3GAN = partial(
    gan,
    rate=1e-3,
    network="r3gan",
    loss=Relativistic(),
    regularisers=[R1(0.1, every=16), R2(0.1, every=16)],
    augment=("color", "translation", "cutout"),
)
RIVALS: dict[str, tuple[Callable[[Tensor, float], tuple[nn.Module, int, Sampler]], str]] = {
    "genzoo": (ours, ""),
    "denoising-diffusion-pytorch": (theirs, peers.missing("denoising-diffusion-pytorch")),
    "diffusers": (diffusers, peers.missing("diffusers")),
    "genzoo, GAN": (OURS, ""),
    "genzoo, GAN of R3GAN's pair": (R3GAN, ""),
    "PyTorch's DCGAN example": (example, ""),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # argparse asks of no rivals, too, whether they are among the choices
    parser.add_argument("rivals", nargs="*", choices=[*RIVALS, []], help=f"of {', '.join(RIVALS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--root", help="a folder of pictures (default: OpenMoji's emoji)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files are (default: in the clone)")
    given = parser.parse_args(argv)
    keep_memory()
    os.environ["TQDM_DISABLE"] = "1"  # the peers' bars
    module: Any = EmojiDataModule(SIDE) if given.root is None else ImageFolderDataModule(given.root, SIDE)
    module.prepare_data()
    module.setup("fit")
    training, test = (torch.cat(list(Rows(module, split))) for split in ("train", "test"))
    extractor = FeatureExtractor("cifar10/classifier")

    def distance(x: Tensor) -> float:
        return float(frechet_distance(*(FeatureStatistics.of(extractor(images)) for images in (test, x))))

    floor = distance(training[torch.randperm(len(training), generator=torch.Generator().manual_seed(0))[:SAMPLES]])
    print(f"{len(training)} pictures for training; of {SAMPLES} of them the distance is {floor:.4g}", flush=True)
    for name in given.rivals or RIVALS:
        train, missing = RIVALS[name]
        if missing:
            print(f"{name}: {missing}")
            continue
        torch.manual_seed(0)
        model, steps, sample = train(training, 60 * given.minutes)
        start = time.perf_counter()
        with torch.no_grad():
            drawn = torch.cat([sample(100) for _ in range(SAMPLES // 100)])
        row = {
            "rival": name,
            "data": "emoji" if given.root is None else Path(given.root).name,
            "minutes": f"{given.minutes:g}",
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": steps,
            "ms_per_sample": 1000 * (time.perf_counter() - start) / SAMPLES,
            "frechet": distance(drawn),
            "floor": floor,
        }
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        path = given.results / "equal_time" / f"{slug(hardware())}.csv"
        merge(path, [row | stamp()], ("rival", "data", "minutes"))


if __name__ == "__main__":
    main()
