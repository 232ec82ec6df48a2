"""What others train and sample with: their trainers as they come, or the loop that their example shows.

Packages are pinned in the `bench` extra. nanoGPT and pytorch-generative are none: clone them into one folder and name
it, `python -m benchmarks --peers FOLDER`.
"""

import functools
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import data
from genzoo.zoo import PixelCNN, ZooModule
from genzoo.zoo.networks import MLP

CLONES = {  # what has no package: where it is, the commit that was measured, and the module by which it is known
    "nanoGPT": ("https://github.com/karpathy/nanoGPT", "3adf61e154c3", "model"),
    "pytorch-generative": ("https://github.com/EugenHotaj/pytorch-generative", "d1f0a5ce4519", "pytorch_generative"),
}
_folder = Path(os.environ.get("GENZOO_PEERS", "peers"))


def look_in(folder: Path) -> None:
    """Where the clones are."""
    global _folder
    _folder = folder


def missing(peer: str) -> str:
    """How to get a peer that is not here; empty if it is."""
    if peer not in CLONES:
        found = importlib.util.find_spec(peer.replace("-", "_"))
        return "" if found else 'pip install "genzoo[bench]"'
    address, commit, module = CLONES[peer]
    if any((_folder / peer / f"{module}{end}").exists() for end in (".py", "/__init__.py")):
        return ""
    return f"git clone {address} {_folder / peer} (measured at {commit})"


def clone(peer: str) -> Any:
    """The module of a clone."""
    path = str((_folder / peer).resolve())
    if path not in sys.path:
        sys.path.append(path)
    return importlib.import_module(CLONES[peer][2])


# ---- text


def nanogpt_model(context: int, depth: int, width: int, heads: int) -> nn.Module:
    """nanoGPT's own network, without biases, as its configurations have it."""
    module = clone("nanoGPT")
    config = module.GPTConfig(
        block_size=context, vocab_size=65, n_layer=depth, n_head=heads, n_embd=width, dropout=0.0, bias=False
    )
    return module.GPT(config)


def nanogpt_loop(
    steps: int, model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], *, context: int, batch_size: int
) -> None:
    """The loop of its train.py on a CPU: windows of a mapped file, AdamW, gradients clipped, each loss shown."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    tokens = data.tokens()

    def batch() -> tuple[Tensor, Tensor]:
        mapped = np.memmap(tokens, dtype=np.uint16, mode="r")
        places = torch.randint(len(mapped) - context, (batch_size,)).tolist()
        x, y = (
            torch.stack([torch.from_numpy(mapped[i + d : i + d + context].astype(np.int64)) for i in places])
            for d in (0, 1)
        )
        return x, y

    x, y = batch()
    for step in range(steps):
        loss = loss_of(x, y)
        x, y = batch()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(f"iter {step}: loss {loss.item():.4f}")


def huggingface(context: int, depth: int, width: int, heads: int) -> Any:
    """Its GPT-2 of the same size, to sample from."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=66,
        n_positions=context + 1,
        n_embd=width,
        n_layer=depth,
        n_head=heads,
        bos_token_id=65,
        eos_token_id=None,
        pad_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


def huggingface_generate(model: Any, batch_size: int, length: int) -> None:
    """So many tokens by its `generate`, from a start token, drawn at random, with its cache of keys and values."""
    start = torch.full((batch_size, 1), 65)
    with torch.inference_mode():
        model.generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            top_k=0,
            min_new_tokens=length,
            max_new_tokens=length,
        )


# ---- images


class OurUNet(nn.Module):
    """The network of a DDPM of ours, with what `GaussianDiffusion` asks of its own."""

    self_condition = random_or_learned_sinusoidal_cond = False

    def __init__(self, model: ZooModule) -> None:
        super().__init__()
        self.net, self.channels, self.out_dim = model.network, model.shape[0], model.shape[0]

    def forward(self, x: Tensor, time: Tensor, x_self_cond: None = None) -> Tensor:
        return self.net(x, time / 250 - 2)


def diffusion_trainer(steps: int, model: ZooModule | None, *, shape: tuple[int, int, int]) -> None:
    """denoising-diffusion-pytorch's `Trainer` around a network of ours, or its own of nearly as many parameters."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

    network = Unet(40, dim_mults=(1, 2, 2), channels=shape[0]) if model is None else OurUNet(model)
    Trainer(
        GaussianDiffusion(network, image_size=shape[1], objective="pred_noise"),
        str(data.pictures(1000, shape, "png")),
        train_batch_size=64,
        train_num_steps=steps,
        augment_horizontal_flip=False,
        save_and_sample_every=steps + 1,
        calculate_fid=False,
        results_folder=str(data.folder() / "denoising-diffusion-pytorch"),
    ).train()


def diffusion_sampler(shape: tuple[int, int, int]) -> Callable[[int], None]:
    """So many images from a network of its own by DDIM, in 20 evaluations."""

    @functools.cache
    def build() -> Any:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet

        network = Unet(40, dim_mults=(1, 2, 2), channels=shape[0])
        return GaussianDiffusion(network, image_size=shape[1], sampling_timesteps=20).eval()

    return lambda images: build().sample(batch_size=images)


def diffusers_unet(shape: tuple[int, ...]) -> Any:
    """diffusers' U-Net of about two million parameters."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=shape[1],
        in_channels=shape[0],
        out_channels=shape[0],
        layers_per_block=1,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )


def diffusers_loop(model: Any, batches: Iterable[tuple[Tensor, float]]) -> int:
    """As its tutorial trains: AdamW with a warm-up and a cosine, gradients clipped. Returns the steps made.

    The batches come with the share of the training that has passed.
    """
    from diffusers import DDPMScheduler

    noise, optimizer = DDPMScheduler(num_train_timesteps=1000), AdamW(model.parameters(), lr=1e-4)
    step = 0
    for step, (x, passed) in enumerate(batches, 1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 * min(step / 500, (1 + math.cos(math.pi * passed)) / 2)
        epsilon, t = torch.randn_like(x), torch.randint(1000, (len(x),))
        optimizer.zero_grad()
        predicted = model(noise.add_noise(2 * x - 1, epsilon, t), t, return_dict=False)[0]
        F.mse_loss(predicted, epsilon).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return step


def torchcfm_loop(model: ZooModule, batches: Iterable[Tensor]) -> None:
    """The loop of torchcfm's example for images: its matcher draws times and points between noise and data."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    network, matcher = model.network, ConditionalFlowMatcher(sigma=0.0)
    optimizer = torch.optim.Adam(network.parameters())
    for x in batches:
        optimizer.zero_grad()
        x1 = 2 * x - 1
        t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        loss = torch.mean((network(xt, t) - ut) ** 2)
        loss.backward()
        optimizer.step()


def gated_pixelcnn() -> nn.Module:
    """pytorch-generative's gated PixelCNN, of nearly as many parameters as that of the recipe mnist/pixelcnn."""
    return clone("pytorch-generative").models.GatedPixelCNN(1, 1, n_gated=10, gated_channels=38, head_channels=32)


@torch.inference_mode()
def pixelcnn_likelihood(model: nn.Module, batch_size: int, images: int) -> None:
    """Of so many images, in batches."""
    for x in torch.randint(2, (images, 1, 28, 28)).float().split(batch_size):
        F.binary_cross_entropy_with_logits(model(x), x, reduction="none").sum((1, 2, 3))


class OurPixelCNN(nn.Module):
    """The network of ours, as pytorch-generative's trainer calls its own: logits of a bit's being 1."""

    def __init__(self, model: ZooModule) -> None:
        super().__init__()
        assert isinstance(model, PixelCNN)
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model.logits(x.long(), None)
        return logits[:, 1] - logits[:, 0]


def pixelcnn_trainer(model: ZooModule | None, batches: Sequence[Tensor]) -> None:
    """pytorch-generative's trainer, with the loss of its example, around our network or its own."""
    trainer = clone("pytorch-generative").trainer
    network = gated_pixelcnn() if model is None else OurPixelCNN(model)

    def loss(x: Tensor, _: None, logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits.flatten(1), x.flatten(1), reduction="none").sum(1).mean()

    trainer.Trainer(
        model=network,
        loss_fn=loss,
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-3),
        train_loader=batches,
        eval_loader=[],
        log_dir=str(data.folder() / "pytorch-generative"),
    ).interleaved_train_and_eval(1, restore=False)


def pythae_trainer(x: Tensor, *, batch_size: int, fused: bool) -> None:
    """Everything as pythae does it, but for the perceptrons, which are the same as in our VAE."""
    from pythae.data.datasets import BaseDataset
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.models.vae import VAE, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    shape, width, depth, latent_dim = tuple(x.shape[1:]), 512, 2, 40

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.net = MLP(math.prod(shape), 2 * latent_dim, width=width, depth=depth)

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_variance = self.net(2 * x - 1).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.net = MLP(latent_dim, math.prod(shape), width=width, depth=depth)

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z).sigmoid().unflatten(1, shape))

    trainer = BaseTrainer(
        VAE(VAEConfig(shape, latent_dim=latent_dim, reconstruction_loss="bce"), Encoder(), Decoder()),
        BaseDataset(x, torch.zeros(len(x))),
        training_config=BaseTrainerConfig(
            output_dir=str(data.folder() / "pythae"),
            per_device_train_batch_size=batch_size,
            num_epochs=1,
            optimizer_cls="AdamW",
            optimizer_params={"weight_decay": 0.0, "fused": fused},
            learning_rate=1e-3,
            no_cuda=True,
        ),
    )
    trainer.train()


# ---- the networks of pytorch/examples' `dcgan`, for 28×28, and as they are there but for 32×32

LATENT_DIM, WIDTH = 64, 32
ADAM = {"lr": 2e-4, "betas": (0.5, 0.999)}


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


def generator_of_the_example() -> nn.Sequential:
    """(B, d) to (B, 3, 32, 32), before the tanh: 64 channels at half size; the example has one doubling more."""
    widths = (256, 128, 64)
    layers: list[nn.Module] = [
        nn.Unflatten(1, (LATENT_DIM, 1, 1)),
        nn.ConvTranspose2d(LATENT_DIM, widths[0], 4, 1, 0, bias=False),
    ]
    for before, after in pairwise((*widths, 3)):
        layers += [nn.BatchNorm2d(before), nn.ReLU(True), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
    return nn.Sequential(*layers)


def discriminator_of_the_example() -> nn.Sequential:
    """(B, 3, 32, 32) to (B, 1), before the sigmoid; as the generator."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for before, after in pairwise((64, 128, 256)):
        convolution = nn.Conv2d(before, after, 4, 2, 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(256, 1, 4, 1, 0, bias=False), nn.Flatten())


def dcgan_loop(
    batches: Iterable[Tensor],
    make_generator: Callable[[], nn.Module] = Generator,
    make_discriminator: Callable[[], nn.Module] = Discriminator,
) -> tuple[nn.Module, nn.Module, int]:
    """As the example trains them, but for its printing and saving: real and fake batches apart, each loss read.

    Returns the generator, from (B, d) to [−1, 1], the discriminator, and the steps made.
    """
    generator = nn.Sequential(make_generator(), nn.Tanh())
    discriminator = nn.Sequential(make_discriminator(), nn.Sigmoid())
    criterion = nn.BCELoss()
    of_discriminator = torch.optim.Adam(discriminator.parameters(), **ADAM)
    of_generator = torch.optim.Adam(generator.parameters(), **ADAM)
    step = 0
    for step, x in enumerate(batches, 1):  # noqa: B007
        real, fake = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        discriminator.zero_grad()
        on_real = criterion(discriminator(2 * x - 1), real)
        on_real.backward()
        made = generator(torch.randn(len(x), LATENT_DIM))
        on_fake = criterion(discriminator(made.detach()), fake)
        on_fake.backward()
        of_discriminator.step()
        generator.zero_grad()
        loss = criterion(discriminator(made), real)
        loss.backward()
        of_generator.step()
        _ = on_real.item(), on_fake.item(), loss.item()
    return generator, discriminator, step


def torchgan_trainer(x: Tensor, *, batch_size: int) -> None:
    """torchgan's `Trainer` and losses, around the same layers."""
    os.environ |= {"TENSORBOARD_LOGGING": "0", "CONSOLE_LOGGING": "0", "VISDOM_LOGGING": "0"}
    from torchgan import losses, models
    from torchgan.trainer import Trainer

    class G(models.Generator):
        def __init__(self) -> None:
            super().__init__(LATENT_DIM)
            self.layers = nn.Sequential(Generator(), nn.Tanh())

        def forward(self, z: Tensor) -> Tensor:
            return self.layers(z)

    class D(models.Discriminator):
        def __init__(self) -> None:
            super().__init__(1)
            self.layers = Discriminator()

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    adam = {"name": torch.optim.Adam, "args": ADAM}
    trainer = Trainer(
        {"generator": {"name": G, "optimizer": adam}, "discriminator": {"name": D, "optimizer": adam}},
        [losses.MinimaxGeneratorLoss(), losses.MinimaxDiscriminatorLoss()],
        device=torch.device("cpu"),
        sample_size=2,
        epochs=1,
        checkpoints=str(data.folder() / "torchgan" / "model"),
        recon=str(data.folder() / "torchgan"),
    )
    trainer.logger.logger_end_epoch.clear()  # pictures, drawn by an argument that torchvision no longer takes
    trainer(DataLoader(TensorDataset(2 * x - 1, torch.zeros(len(x))), batch_size, shuffle=True))
