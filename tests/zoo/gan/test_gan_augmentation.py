"""Augmentations against what they are said to do, alike for real and generated images, and with a gradient."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from genzoo.zoo import GAN, R1, NonSaturating, Packing, Relativistic
from genzoo.zoo.gan.augmentation import AUGMENTATIONS, augmented, color, cutout, translation

KINDS = list(AUGMENTATIONS)


def images(number: int, channels: int = 3, size: tuple[int, int] = (16, 9)) -> Tensor:
    return torch.rand(number, channels, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_translation_moves_each_image_by_whole_pixels_and_keeps_what_stays_inside(channels: int) -> None:
    torch.manual_seed(0)
    x = images(400, channels) + 2  # nothing is 0 but what came in
    moves = set()
    for before, after in zip(x, translation(x), strict=True):
        found = [
            (down, right)
            for down, right in itertools.product(range(-2, 3), range(-1, 2))
            if torch.equal(after, moved(before, down, right))
        ]
        assert len(found) == 1
        moves |= set(found)
    assert moves == set(itertools.product(range(-2, 3), range(-1, 2)))  # up to an eighth of 16 and of 9 pixels


def moved(x: Tensor, down: int, right: int) -> Tensor:
    """(C, H, W), by slices."""
    out, (height, width) = torch.zeros_like(x), x.shape[1:]
    rows, columns = slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right))
    out[:, rows, columns] = x[:, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    return out


@pytest.mark.parametrize("channels", [1, 3])
def test_a_cutout_is_a_rectangle_of_half_the_sides_around_any_pixel(channels: int) -> None:
    torch.manual_seed(0)
    x = images(3000, channels) + 2
    out = cutout(x)
    cut = out == 0
    assert torch.equal(out[~cut], x[~cut]) and torch.equal(cut, cut[:, :1].expand(cut.shape))
    rows, columns = cut[:, 0].any(2), cut[:, 0].any(1)
    assert torch.equal(cut[:, 0], rows[:, :, None] & columns[:, None])
    for inside, length in ((rows, 8), (columns, 5)):
        starts = inside.int().diff(dim=1, prepend=torch.zeros(len(x), 1)).eq(1).sum(1)
        assert bool((starts == 1).all())  # one piece
        assert set(inside.sum(1).tolist()) == set(range(length - length // 2, length + 1))  # less, at the border
    torch.testing.assert_close(rows.double().mean(0)[4:-4], torch.full((8,), 0.5).double(), atol=0.04, rtol=0)


def test_color_moves_brightness_saturation_and_contrast_of_each_image_alone() -> None:
    """Of an image with channel means m: its mean is m + b, |b| ≤ ½; a pixel's spread of channels s · c ≤ 2 · 1.5."""
    torch.manual_seed(0)
    x = images(2000)
    out = color(x)
    brighter = (out - x).mean((1, 2, 3))
    assert 0.48 < float(brighter.max()) <= 0.5 and -0.5 <= float(brighter.min()) < -0.48
    grey, grey_out = (t.mean(1, keepdim=True) for t in (x, out))
    contrast = grey_out.flatten(1).std(1) / grey.flatten(1).std(1)
    assert 0.5 <= float(contrast.min()) < 0.52 and 1.48 < float(contrast.max()) <= 1.5
    saturation = (out - grey_out).flatten(1).norm(dim=1) / (x - grey).flatten(1).norm(dim=1) / contrast
    assert 0 <= float(saturation.min()) < 0.02 and 1.98 < float(saturation.max()) <= 2
    rebuilt = (grey_out.mean((2, 3), keepdim=True)) + contrast.view(-1, 1, 1, 1) * (
        (grey - grey.mean((2, 3), keepdim=True)) + saturation.view(-1, 1, 1, 1) * (x - grey)
    )
    torch.testing.assert_close(out, rebuilt)
    for a, b in itertools.combinations([brighter, contrast, saturation], 2):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.07


def test_a_grey_image_has_no_saturation() -> None:
    torch.manual_seed(0)
    x = images(50, 1)
    out = color(x)
    scale = (out - out.mean((2, 3), keepdim=True)) / (x - x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(scale, scale.mean((1, 2, 3), keepdim=True).expand(scale.shape), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_pass(kind: str, channels: int) -> None:
    x = images(3, channels, (8, 5)).requires_grad_()

    def drawn(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        return AUGMENTATIONS[kind](x)

    assert torch.autograd.gradcheck(drawn, [x])


@pytest.mark.parametrize("kind", KINDS)
def test_each_image_draws_on_its_own(kind: str) -> None:
    torch.manual_seed(0)
    out = AUGMENTATIONS[kind](images(1).expand(64, 3, 16, 9))
    assert len(out.flatten(1).unique(dim=0)) > 10


class Shown(GAN):
    """Keeps what its discriminator is shown, and what was made of it."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__((3, 16, 16), 256, latent_dim=4, width=8, **arguments)
        self.seen: list[Tensor] = []
        self.discriminator.register_forward_pre_hook(lambda _, inputs: self.seen.append(inputs[0].detach()))

    def generate(self, latents: Tensor) -> Tensor:
        """Images without a place, so that all of a change can be seen."""
        return super().generate(latents) * 0 + 0.5


@pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()])
def test_real_and_generated_are_changed_alike_and_anew_in_each_step(loss: Any) -> None:
    """The real images are the generated ones here, so what is shown of them is one distribution."""
    torch.manual_seed(0)
    model = Shown(augment=["translation", "cutout"], loss=loss, regularisers=[])
    x = torch.full((1500, 3, 16, 16), 0.75)
    model.discriminator_loss(x, None, step=0)
    model.generator_loss(x, None)
    assert len(model.seen) == (4 if loss.relativistic else 3)
    shares = [(seen == 0.5).double().mean(0) for seen in model.seen]
    assert float(shares[0].min()) > 0.2 and float(shares[0].max()) < 0.9
    for share, seen in zip(shares[1:], model.seen[1:], strict=True):
        torch.testing.assert_close(share, shares[0], atol=0.08, rtol=0)
        assert not torch.equal(seen, model.seen[0])


def test_the_generator_learns_through_it_and_nothing_else_is_changed() -> None:
    torch.manual_seed(0)
    model = GAN((3, 16, 16), 256, latent_dim=4, width=8, augment=KINDS, regularisers=[R1(1.0)])
    x = torch.rand(4, 3, 16, 16)
    model.generator_loss(x, None)["loss_generator"].mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.generator.parameters())
    plain = GAN((3, 16, 16), 256, latent_dim=4, width=8)
    plain.load_state_dict(model.state_dict())
    draw = [m.sample(3, generator=torch.Generator().manual_seed(0)) for m in (model, plain)]
    assert torch.equal(*draw)
    scores = [m.evaluation(x, None, torch.Generator().manual_seed(0))["score_real"] for m in (model, plain)]
    assert torch.equal(*scores)


def test_the_parts_of_a_pack_are_changed_each_on_its_own() -> None:
    torch.manual_seed(0)
    model = Shown(augment=["cutout"], regularisers=[Packing(2)], loss=NonSaturating())
    model.discriminator_loss(torch.full((40, 3, 16, 16), 0.75), None, step=0)
    first, second = model.seen[0].chunk(2, 1)
    assert not torch.equal(first, second) and torch.equal(first.roll(-1, 0), second)


def test_none_is_the_default_and_changes_nothing() -> None:
    x = images(2)
    assert GAN((3, 16, 16), 256).augment == () and augmented(x, ()) is x


@pytest.mark.parametrize(
    ("shape", "augment", "message"),
    [
        ((3, 16, 16), ["colour"], r"\['colour'\].*'color', 'translation', 'cutout'"),
        ((3, 16, 16), "color", "give a list"),
        ((3, 16, 16), ["color", "color"], "each once"),
        ((2,), ["translation"], "only images.*points"),
        ((1, 16), ["translation"], "only images.*waveform"),
    ],
)
def test_what_cannot_be_augmented_is_refused(shape: tuple[int, ...], augment: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GAN(shape, None if len(shape) == 1 else 256, augment=augment)


@pytest.mark.parametrize("size", [6, 7, 8])
def test_cutout_cuts_no_side_more_often_than_the_other(size: int) -> None:
    torch.manual_seed(0)
    left = AUGMENTATIONS["cutout"](torch.ones(40_000, 1, size, size)).mean((0, 1))
    torch.testing.assert_close(left, left.flip(0), rtol=0, atol=0.012)
    torch.testing.assert_close(left, left.flip(1), rtol=0, atol=0.012)
