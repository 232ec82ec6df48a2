"""Sampling and likelihoods: the cached way, which is the default, against the whole network each step, and peers.

The uncached way is timed over some of its steps, evenly spread, where all of them would take too long; each step
costs it the same.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks import peers
from benchmarks.contest import Contest, Rival
from genzoo.zoo import DDPM, GPT, PixelCNN, WaveNet


def contests() -> Iterator[Contest]:
    """All of them."""
    yield from cached()
    yield from beside_huggingface()
    yield from diffusion()
    yield from likelihood()


def cached() -> Iterator[Contest]:
    cases: dict[str, tuple[Callable[[], Any], tuple[int, ...], int, float]] = {
        "PixelCNN, 28×28": (mnist_pixelcnn, (16, 64), 4, 30),
        "GPT 4×128, 256 tokens": (lambda: GPT((256,), 65), (1, 16), 8, 10),
        "WaveNet, 4,000 samples": (lambda: WaveNet((1, 4000), 256), (1, 16), 2, 100),
    }
    for name, (build, batch_sizes, some, wanted) in cases.items():
        model = build().eval()
        for size in batch_sizes:
            ours, uncached = partial(draw_cached, model, size), partial(draw_uncached, model, size)
            rival = Rival("the whole network each step", uncached, wanted, steps=(0, some))
            yield Contest("sampling", f"{name}, batch {size}", "dimension", ours, [rival], (0, model.num_dims))


@torch.inference_mode()
def draw_cached(model: Any, batch_size: int, dims: int) -> None:
    """A batch; only whole ones can be drawn, so `dims` is D or more."""
    codes = torch.zeros(batch_size, *model.shape, dtype=torch.int64)
    model.draw(codes, torch.zeros_like(codes, dtype=torch.bool), None, torch.rand(codes.shape))


@torch.inference_mode()
def draw_uncached(model: Any, batch_size: int, dims: int) -> None:
    """So many dimensions of a batch, evenly spread."""
    codes = torch.zeros(batch_size, *model.shape, dtype=torch.int64)
    known = torch.ones_like(codes, dtype=torch.bool)
    known.flatten(1)[:, [i * model.num_dims // dims for i in range(dims)]] = False
    model.draw_uncached(codes, known, None, torch.rand(codes.shape))


def beside_huggingface() -> Iterator[Contest]:
    absent = peers.missing("transformers")
    for depth, width, heads, context in ((4, 128, 4, 64), (6, 384, 6, 256)):
        ours = GPT((context,), 65, depth=depth, width=width, heads=heads).eval()
        theirs = None if absent else peers.huggingface(context, depth, width, heads)
        for batch_size in (1, 16):
            yield Contest(
                "sampling",
                f"GPT {depth}×{width}, {context} tokens, batch {batch_size}",
                "token",
                partial(sample_tokens, ours, batch_size),
                [
                    Rival(
                        "Hugging Face's generate, cached",
                        partial(peers.huggingface_generate, theirs, batch_size),
                        1.0,
                        absent,
                    )
                ],
                (0, context),
            )


def sample_tokens(model: GPT, batch_size: int, length: int) -> None:
    model.sample(batch_size, length=length)


def diffusion() -> Iterator[Contest]:
    """20 evaluations of networks with 2.0 M parameters."""
    shape, absent = (1, 28, 28), peers.missing("denoising-diffusion-pytorch")
    model = DDPM(shape, 256, width=64, multipliers=(1, 2, 2), attention=True).eval()
    yield Contest(
        "sampling",
        "U-Net 2 M, 1×28×28, 20 evaluations",
        "image",
        model.sample,
        [Rival("denoising-diffusion-pytorch, DDIM", peers.diffusion_sampler(shape), 1.5, absent)],
        (0, 16),
    )


def mnist_pixelcnn() -> PixelCNN:
    """That of the recipe mnist/pixelcnn."""
    return PixelCNN((1, 28, 28), 2, channels=64, depth=6)


def likelihood() -> Iterator[Contest]:
    """Per image it should cost the same in a batch of any size."""
    model, absent = mnist_pixelcnn().eval(), peers.missing("pytorch-generative")
    theirs = None if absent else peers.gated_pixelcnn().eval()
    for batch_size in (16, 128, 256):
        rivals = [
            Rival(
                "pytorch-generative",
                partial(peers.pixelcnn_likelihood, theirs, batch_size),
                1.0,
                absent,
            )
        ]
        if batch_size > 16:
            rivals.append(Rival("the same in batches of 16", partial(log_prob, model, 16), 0.9))
        yield Contest(
            "likelihood",
            f"PixelCNN 0.31 M, exact, batch {batch_size}",
            "image",
            partial(log_prob, model, batch_size),
            rivals,
            (0, 256),
        )


@torch.inference_mode()
def log_prob(model: PixelCNN, batch_size: int, images: int) -> None:
    """Of so many images, in batches."""
    for x in torch.randint(2, (images, *model.shape)).float().split(batch_size):
        model.log_prob(x)
