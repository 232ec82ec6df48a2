"""Halving images of any size, and the networks that do it."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from genzoo.zoo.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
    ResNetDecoder,
    ResNetEncoder,
    UNet,
)
from genzoo.zoo.networks.pyramid import pad_to_multiple, pyramid

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 7, 9), (3, 17, 30), (1, 5, 64), (2, 1, 1)]


def test_sizes_are_halved_and_rounded_up():
    assert pyramid((1, 28, 28)) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert pyramid((1, 28, 28), 2) == [(28, 28), (14, 14), (7, 7)]
    assert pyramid((3, 17, 30), 3) == [(17, 30), (9, 15), (5, 8), (3, 4)]


@pytest.mark.parametrize("height", range(1, 70))
def test_each_side_is_half_the_one_before_down_to_four_pixels(height):
    sizes = pyramid((1, height, 100))
    for (before, _), (after, _) in pairwise(sizes):
        assert 2 * after - before in (0, 1)
    assert sizes[0] == (height, 100) and sizes[-1][0] <= 4
    assert len(sizes) == 2 or sizes[-2][0] > 4  # one halving at least, and none too many


@pytest.mark.parametrize("n", [1, 2, 3])
def test_padding_is_the_least_that_n_divides(n):
    x = torch.rand(2, 3, 7, 8) + 1
    padded = pad_to_multiple(x, n)
    assert padded.shape == (2, 3, *({1: (7, 8), 2: (8, 8), 3: (9, 9)}[n]))
    assert torch.equal(padded[..., :7, :8], x) and float(padded.sum()) == pytest.approx(float(x.sum()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("down", "up"),
    [
        (DCGANDiscriminator, DCGANGenerator),
        (ResNetEncoder, ResNetDecoder),
        (R3GANDiscriminator, R3GANGenerator),
    ],
    ids=["dcgan", "resnet", "r3gan"],
)
def test_networks_take_and_give_images_of_any_size_and_read_every_pixel(down, up, shape):
    torch.manual_seed(0)
    x = torch.randn(3, *shape, requires_grad=True)
    features = down(shape, 5, width=4)(x)
    assert features.shape == (3, 5)
    features.square().sum().backward()
    assert bool((x.grad != 0).all())
    assert up(5, shape, width=4)(torch.randn(3, 5)).flatten(1).shape == x.flatten(1).shape


@pytest.mark.parametrize(
    "build",
    [
        lambda: DCGANGenerator(3, (12,)),
        lambda: DCGANDiscriminator((12,), 3),
        lambda: R3GANGenerator(3, (12,)),
        lambda: R3GANDiscriminator((1, 16), 3),
        lambda: ResNetEncoder((1, 16), 3),
        lambda: ResNetDecoder(3, (1, 16)),
        lambda: UNet((2, 3, 4, 5)),
    ],
)
def test_what_is_no_image_is_refused(build):
    with pytest.raises(ValueError, match=r"images \(C, H, W\), but shape=\("):
        build()


def test_the_widths_double_with_each_halving():
    def widths(network: nn.Module) -> list[int]:
        return [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]

    assert widths(DCGANDiscriminator((1, 28, 28), 3, width=4)) == [4, 8, 16]
    assert widths(ResNetEncoder((1, 28, 28), 3, width=4)) == [8, 16]
