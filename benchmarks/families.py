"""The contests of training: every family in a bare loop, and every peer's own loop with the same network."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from torch.optim import Adam, AdamW

from benchmarks import data, peers
from benchmarks.contest import Contest, Rival
from benchmarks.training import Case, as_convolutions, as_matrices, bare, fit
from genzoo.callbacks import EMA
from genzoo.zoo import (
    DDPM,
    GAN,
    GPT,
    MADE,
    R1,
    R2,
    VAE,
    Autoencoder,
    FlowMatching,
    Muon,
    NonSaturating,
    PixelCNN,
    WaveNet,
    ZooModule,
)
from genzoo.zoo.precision import fastest_precision

ADAMW, ADAM = partial(AdamW, lr=1e-3, fused=True), partial(Adam, lr=2e-4, betas=(0.5, 0.999), fused=True)
LARGE, SMALL = 0.97, 0.90  # of the bare loop's speed: where a step takes 20 ms and more, and where it takes less
GREY, COLOUR, CODES = (1, 28, 28), (3, 32, 32), (4, 8, 8)


def contests() -> Iterator[Contest]:
    """All of them."""
    yield from gpt(4, 128, 4, context=64, batch_size=12, steps=(5, 65))
    yield from gpt(6, 384, 6, context=256, batch_size=8, steps=(1, 9))
    yield from unet(GREY)
    yield from unet(COLOUR)
    yield from flow_matching()
    yield from dit()
    yield from codes()
    yield from pixelcnn()
    yield from vae()
    yield from dcgan()
    yield from gan()
    yield from others()


def gpt(
    depth: int, width: int, heads: int, *, context: int, batch_size: int, steps: tuple[int, int]
) -> Iterator[Contest]:
    """nanoGPT trains with AdamW and clips gradients, as ours does here, in float32, as it does on a CPU; then ours in
    the precision of our recipes, "auto"; then the share of Muon, our default.
    """

    def model(optimizer: Any) -> ZooModule:
        return GPT((context,), 65, depth=depth, width=width, heads=heads, optimizer=optimizer)

    name, texts = f"GPT {depth}×{width}, {context} tokens", partial(data.texts, context, batch_size)
    case = Case(f"{name}, batch {batch_size}", partial(model, ADAMW), texts, steps, {"gradient_clip_val": 1.0})
    loop = partial(peers.nanogpt_loop, context=context, batch_size=batch_size)

    def in_their_loop(steps: int) -> None:
        ours = case.model()
        loop(steps, ours, lambda x, y: ours.objective(x, None)["loss"].mean())

    def as_it_comes(steps: int) -> None:
        theirs = peers.nanogpt_model(context, depth, width, heads)
        loop(steps, theirs, lambda x, y: theirs(x, y)[1])

    absent = peers.missing("nanoGPT")
    yield case.contest(
        case.bare(LARGE),
        Rival("nanoGPT's loop, our network", in_their_loop, 1.0, absent),
        Rival("nanoGPT", as_it_comes, 1.0, absent),
        Rival("the machine's matrix products", partial(as_matrices, case), 0.75 if width > 128 else None),
    )
    ours = replace(case, name=f"{name}, as each comes", precision=fastest_precision("cpu"))
    yield ours.contest(Rival("nanoGPT", as_it_comes, 1.1, absent))
    yield from muon(Case(f"{name}, Muon", partial(model, Muon), texts, steps), share=0.15)


def muon(case: Case, *, share: float) -> Iterator[Contest]:
    """What Muon takes of a step, at most so much."""
    without = Rival("the same without an optimiser", partial(bare, case, step=False), 1 - share)
    yield case.contest(case.bare(LARGE), without)


def unet(shape: tuple[int, int, int]) -> Iterator[Contest]:
    """denoising-diffusion-pytorch's trainer clips gradients and averages weights, so there ours does, too."""

    def model(optimizer: Any) -> ZooModule:
        # Variances that are fitted once, after training, would be no part of a step, but cost a long run more.
        sizes = {"width": 64, "multipliers": (1, 2, 2), "attention": True}
        return DDPM(shape, 256, **sizes, variance="large", optimizer=optimizer)

    name, images = f"U-Net 2 M, {'×'.join(map(str, shape))}", partial(data.Images, shape, 64)
    case = Case(f"{name}, batch 64", partial(model, ADAMW), images, (1, 9))
    machine = Rival("the machine's convolutions", partial(as_convolutions, case), 0.8)
    yield case.contest(case.bare(LARGE), machine)
    yield from muon(Case(f"{name}, Muon", partial(model, Muon), images, (1, 7)), share=0.1)
    averaged = Case(
        f"{name}, clipped and averaged",
        partial(model, ADAMW),
        images,
        (1, 9),
        {"gradient_clip_val": 500},
        lambda: [EMA(0.995)],
    )
    absent, trainer = peers.missing("denoising-diffusion-pytorch"), partial(peers.diffusion_trainer, shape=shape)

    def tutorial(n: int) -> None:
        peers.diffusers_loop(peers.diffusers_unet(shape), ((x, 0.0) for x in islice(cycle(case.x), n)))

    yield averaged.contest(
        Rival("denoising-diffusion-pytorch, our network", lambda n: trainer(n, case.model()), 1.0, absent),
        Rival("denoising-diffusion-pytorch", lambda n: trainer(n, None), 3.0, absent, steps=(1, 4)),
        Rival("diffusers", tutorial, 3.0, peers.missing("diffusers"), steps=(1, 4)),
    )


def flow_matching() -> Iterator[Contest]:
    case = Case(
        "U-Net 1.1 M, flow matching, batch 64",
        lambda: FlowMatching(GREY, 256, width=40, multipliers=(2, 3), optimizer=ADAMW),
        partial(data.Images, GREY, 64),
        (1, 13),
    )
    theirs = Rival(
        "torchcfm's loop, our network",
        lambda n: peers.torchcfm_loop(case.model(), islice(cycle(case.x), n)),
        1.0,
        peers.missing("torchcfm"),
    )
    yield case.contest(case.bare(LARGE), theirs)


def dit() -> Iterator[Contest]:
    """A transformer of 64 patches, nearly all of whose work is matrix products."""
    case = Case(
        "DiT 7 M, 3×32×32, patch 4, batch 32",
        lambda: FlowMatching(COLOUR, 256, network="dit", patch=4, width=256, depth=6, optimizer=ADAMW),
        partial(data.Images, COLOUR, 32),
        (1, 6),
    )
    machine = Rival("the machine's matrix products", partial(as_matrices, case), 0.7)
    yield case.contest(case.bare(LARGE), machine)


def codes() -> Iterator[Contest]:
    """The two stages of a model of codes: an autoencoder to 4×8×8, and a U-Net of these."""
    of_pixels = Case(
        "autoencoder of 3×32×32 to 4×8×8, batch 64",
        lambda: VAE(COLOUR, 256, network="spatial", factor=4, latent_dim=4, width=16, optimizer=ADAMW),
        partial(data.Images, COLOUR, 64),
        (2, 22),
    )
    of_codes = Case(
        "U-Net 1.1 M of codes 4×8×8, batch 64",
        lambda: FlowMatching(CODES, None, network="unet", width=64, multipliers=(1, 2), optimizer=ADAMW),
        partial(data.Codes, CODES, 64),
        (2, 22),
    )
    for case in (of_pixels, of_codes):
        yield case.contest(case.bare(LARGE))


def pixelcnn() -> Iterator[Contest]:
    case = Case(
        "PixelCNN 0.31 M, batch 32",
        lambda: PixelCNN(GREY, 2, channels=64, depth=6, optimizer=ADAMW),
        partial(data.Images, GREY, 32, binary=True),
        (1, 9),
    )
    absent = peers.missing("pytorch-generative")

    def theirs(n: int, model: ZooModule | None) -> None:
        peers.pixelcnn_trainer(model, list(islice(cycle(case.x), n)))

    yield case.contest(
        case.bare(LARGE),
        Rival("pytorch-generative, our network", lambda n: theirs(n, case.model()), 1.0, absent),
        Rival("pytorch-generative", lambda n: theirs(n, None), 1.0, absent),
        Rival("the machine's convolutions", partial(as_convolutions, case), 0.7),
    )


def vae() -> Iterator[Contest]:
    case = Case(
        "VAE, perceptrons, batch 128",
        lambda: VAE(GREY, 2, network="mlp", width=512, depth=2, latent_dim=40),
        partial(data.Images, GREY, 128, binary=True),
        (5, 125),
    )
    absent = peers.missing("pythae")

    def theirs(n: int, fused: bool) -> None:
        peers.pythae_trainer(torch.cat(list(islice(cycle(case.x), n))), batch_size=128, fused=fused)

    yield case.contest(
        case.bare(SMALL),
        Rival("pythae", lambda n: theirs(n, False), 1.0, absent),
        Rival("pythae with a fused AdamW", lambda n: theirs(n, True), 1.0, absent),
    )


def dcgan() -> Iterator[Contest]:
    """The networks of PyTorch's own example, for 28×28."""
    case = Case(
        "DCGAN of PyTorch's example, batch 64",
        lambda: GAN(
            GREY,
            256,
            latent_dim=peers.LATENT_DIM,
            loss=NonSaturating(),
            regularisers=[],
            generator=peers.Generator(),
            discriminator=peers.Discriminator(),
            generator_optimizer=ADAM,
            discriminator_optimizer=ADAM,
        ),
        partial(data.Images, GREY, 64),
        (3, 43),
    )
    yield case.contest(
        case.bare(LARGE),
        Rival("the example's loop", lambda n: peers.dcgan_loop(islice(cycle(case.x), n)), 1.0),
        Rival(
            "torchgan",
            lambda n: peers.torchgan_trainer(torch.cat(list(islice(cycle(case.x), n))), batch_size=64),
            1.0,
            peers.missing("torchgan"),
        ),
    )


def gan() -> Iterator[Contest]:
    """Our default beside what was it at first, in the same loop, and beside the networks of PyTorch's example."""
    images = partial(data.Images, COLOUR, 64)
    case = Case("GAN, 3×32×32, batch 64", lambda: GAN(COLOUR, 256), images, (3, 35))
    before = Case(
        "GAN of residual convolutions",
        lambda: GAN(COLOUR, 256, network="resnet", regularisers=[R1(0.1), R2(0.1)]),
        images,
        (1, 5),
    )
    theirs = partial(peers.dcgan_loop, make_generator=peers.generator_of_the_example)
    theirs = partial(theirs, make_discriminator=peers.discriminator_of_the_example)
    yield case.contest(
        case.bare(LARGE),
        Rival("residual convolutions, penalties in each step", partial(fit, before), 6.0, steps=before.steps),
        Rival("the networks of PyTorch's example", lambda n: theirs(islice(cycle(case.x), n)), 1.0),
    )


def others() -> Iterator[Contest]:
    """Families that no peer has, or whose networks are our own defaults, beside a bare loop alone."""
    bits, grey = partial(data.Images, GREY, 128, binary=True), partial(data.Images, GREY, 32)
    cases: dict[str, tuple[Callable[[], ZooModule], Callable[[], Any], tuple[int, int], float]] = {
        "MADE, batch 128": (lambda: MADE(GREY, 2), bits, (5, 65), SMALL),
        "Autoencoder, perceptrons, batch 128": (
            lambda: Autoencoder(GREY, 2, network="mlp", width=128, depth=2, latent_dim=16),
            bits,
            (10, 210),
            SMALL,
        ),
        "VAE, convolutions, batch 32": (lambda: VAE(GREY, 256), grey, (1, 11), LARGE),
        "GAN, convolutions, batch 32": (lambda: GAN(GREY, 256), grey, (3, 35), LARGE),
        "WaveNet, 4,096 samples, batch 4": (
            lambda: WaveNet((1, 4096), 256),
            lambda: data.Sounds(4096, 4),
            (1, 9),
            LARGE,
        ),
    }
    for name, (model, module, steps, wanted) in cases.items():
        case = Case(name, model, module, steps)
        yield case.contest(case.bare(wanted))
