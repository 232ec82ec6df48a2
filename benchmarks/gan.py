"""Training a DCGAN: steps a second of `genzoo fit`, of the loop of pytorch/examples, and of torchgan's trainer.

    python benchmarks/gan.py --root data

All train the same two networks, those of pytorch/examples' `dcgan` for 28×28, on the same images of MNIST, in batches
of 64, in one thread, with Adam and the non-saturating loss. `genzoo fit` trains `GAN` as the recipes do, in bfloat16
autocast with channels last; so that it shows what comes from where, also in float32. The loop is that of
pytorch/examples, step by step, in float32, as it comes; so is the `Trainer` of torchgan. How the times are taken is
said in `race.py`. Without MNIST under `--root`, random images take its place.
"""

import argparse
import logging
import os
import tempfile
from itertools import islice
from pathlib import Path

import torch
from race import Run, genzoo_fit, has_mnist, race, random_mnist
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from genzoo.datamodules import MNISTDataModule

BATCH_SIZE, LATENT_DIM, WIDTH, LR, BETAS = 64, 64, 32, 2e-4, (0.5, 0.999)
SHORT, LONG = 10, 60  # steps
WANTED = {"pytorch/examples": 1.5, "torchgan": 1.5}  # how many times as fast `genzoo fit` should be

RECIPE = f"""\
model:
  class_path: GAN
  init_args:
    latent_dim: {LATENT_DIM}
    loss: {{class_path: NonSaturating}}
    regularisers: []
    generator: {{class_path: gan.Generator}}
    discriminator: {{class_path: gan.Discriminator}}
    generator_optimizer: {{class_path: torch.optim.Adam, init_args: {{lr: {LR}, betas: {list(BETAS)}}}}}
    discriminator_optimizer: {{class_path: torch.optim.Adam, init_args: {{lr: {LR}, betas: {list(BETAS)}}}}}
data: {{class_path: MNISTDataModule, init_args: {{batch_size: {BATCH_SIZE}}}}}
trainer: {{accelerator: cpu, limit_val_batches: 0, num_sanity_val_steps: 0}}
"""


class Generator(nn.Sequential):
    """(B, d) to (B, 1, 28, 28), before the tanh."""

    def __init__(self) -> None:
        super().__init__(
            nn.Unflatten(1, (LATENT_DIM, 1, 1)),
            nn.ConvTranspose2d(LATENT_DIM, 4 * WIDTH, 4, 1, 0, bias=False),
            nn.BatchNorm2d(4 * WIDTH),
            nn.ReLU(True),
            nn.ConvTranspose2d(4 * WIDTH, 2 * WIDTH, 3, 2, 1, bias=False),
            nn.BatchNorm2d(2 * WIDTH),
            nn.ReLU(True),
            nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(True),
            nn.ConvTranspose2d(WIDTH, 1, 4, 2, 1, bias=False),
        )
        self.to(memory_format=torch.channels_last)


class Discriminator(nn.Sequential):
    """(B, 1, 28, 28) to (B, 1), before the sigmoid."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, WIDTH, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * WIDTH),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * WIDTH, 4 * WIDTH, 3, 2, 1, bias=False),
            nn.BatchNorm2d(4 * WIDTH),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(4 * WIDTH, 1, 4, 1, 0, bias=False),
            nn.Flatten(),
        )
        self.to(memory_format=torch.channels_last)


def examples_loop(data: MNISTDataModule, steps: int) -> None:
    """The loop of pytorch/examples, dcgan/main.py, but for its printing and saving."""
    generator = nn.Sequential(Generator().to(memory_format=torch.contiguous_format), nn.Tanh())
    discriminator = nn.Sequential(Discriminator().to(memory_format=torch.contiguous_format), nn.Sigmoid())
    criterion = nn.BCELoss()
    of_discriminator = torch.optim.Adam(discriminator.parameters(), lr=LR, betas=BETAS)
    of_generator = torch.optim.Adam(generator.parameters(), lr=LR, betas=BETAS)
    for x, _ in islice(data.train_dataloader(), steps):
        discriminator.zero_grad()
        real = 2 * x - 1
        label = torch.full((len(x),), 1.0)
        loss_real = criterion(discriminator(real).view(-1), label)
        loss_real.backward()
        fake = generator(torch.randn(len(x), LATENT_DIM))
        label.fill_(0.0)
        loss_fake = criterion(discriminator(fake.detach()).view(-1), label)
        loss_fake.backward()
        of_discriminator.step()
        generator.zero_grad()
        label.fill_(1.0)
        loss = criterion(discriminator(fake).view(-1), label)
        loss.backward()
        _ = loss.item()
        of_generator.step()


def torchgan_trainer(folder: Path, x: Tensor, steps: int) -> None:
    """torchgan's `Trainer` and losses, around the same layers."""
    from torchgan.losses import MinimaxDiscriminatorLoss, MinimaxGeneratorLoss
    from torchgan.models import Discriminator as TheirDiscriminator
    from torchgan.models import Generator as TheirGenerator
    from torchgan.trainer import Trainer

    class G(TheirGenerator):
        def __init__(self) -> None:
            super().__init__(LATENT_DIM)
            self.layers = nn.Sequential(Generator(), nn.Tanh())

        def forward(self, z: Tensor) -> Tensor:
            return self.layers(z)

    class D(TheirDiscriminator):
        def __init__(self) -> None:
            super().__init__(1)
            self.layers = Discriminator()

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    adam = {"name": torch.optim.Adam, "args": {"lr": LR, "betas": BETAS}}
    networks = {"generator": {"name": G, "optimizer": adam}, "discriminator": {"name": D, "optimizer": adam}}
    images = TensorDataset(2 * x[: steps * BATCH_SIZE] - 1, torch.zeros(steps * BATCH_SIZE))
    Trainer(
        networks,
        [MinimaxGeneratorLoss(), MinimaxDiscriminatorLoss()],
        device=torch.device("cpu"),
        sample_size=2,
        epochs=1,
        checkpoints=str(folder / "model"),
        recon=str(folder),
    )(DataLoader(images, BATCH_SIZE, shuffle=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="the folder that has MNIST/raw (default: data)")
    parser.add_argument("--rounds", type=int, default=2, help="the best of how many (default: 2)")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    os.environ |= {"TENSORBOARD_LOGGING": "0", "CONSOLE_LOGGING": "0"}  # torchgan's

    with tempfile.TemporaryDirectory() as temporary:
        folder, root = Path(temporary), given.root
        if not has_mnist(root):
            root = str(folder)
            random_mnist(folder)
        data = MNISTDataModule(root, BATCH_SIZE)
        x = torch.cat([x for x, _ in islice(data.train_dataloader(), LONG)])

        runs: dict[str, Run] = {
            "genzoo fit": lambda steps: genzoo_fit(folder, RECIPE, root, steps, "bf16-mixed"),
            "genzoo fit, float32": lambda steps: genzoo_fit(folder, RECIPE, root, steps, "32-true"),
            "pytorch/examples": lambda steps: examples_loop(data, steps),
        }
        try:
            import torchgan  # noqa: F401

            runs["torchgan"] = lambda steps: torchgan_trainer(folder, x, steps)
        except ModuleNotFoundError:
            print('torchgan is not installed (pip install "genzoo[bench]"), so it is left out')

        print(f"{'MNIST' if root == given.root else 'random images'}: steps of {BATCH_SIZE}, in one thread")
        race(runs, short=SHORT, long=LONG, rounds=given.rounds, wanted=WANTED)


if __name__ == "__main__":
    main()
