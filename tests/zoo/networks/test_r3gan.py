"""The residual pair: what it costs, how it begins, and that each datum is judged by itself."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from genzoo.zoo.networks import R3GANDiscriminator, R3GANGenerator
from genzoo.zoo.networks.r3gan import SMALL, Bottleneck


def flops(network: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network(x)
    return counter.get_total_flops()


def test_the_cost_grows_less_than_the_area_of_an_image() -> None:
    """From 8 to 64 pixels the operations are 15 times as many where pixels are 64 times; to 128, 50 where 256."""
    torch.manual_seed(0)
    sides = (8, 16, 32, 64, 128)
    of_generator = [flops(R3GANGenerator(32, (3, n, n)), torch.randn(1, 32)) for n in sides]
    of_discriminator = [flops(R3GANDiscriminator((3, n, n), 1), torch.randn(1, 3, n, n)) for n in sides]
    for costs in (of_generator, of_discriminator):
        assert all(1 < after / before < 3.7 for before, after in pairwise(costs))
        assert costs[3] / costs[0] < 15 and costs[4] / costs[0] < 50


@pytest.mark.parametrize("channels", [8, 32, 48])
def test_a_block_is_the_identity_and_a_little_more(channels: int) -> None:
    torch.manual_seed(0)
    h = torch.randn(64, channels, 6, 6)
    branch = (Bottleneck(channels)(h) - h).detach()
    assert 0.5 * SMALL < float(branch.std()) < 2 * SMALL


@pytest.mark.parametrize("side", [8, 28, 32, 64])
def test_both_begin_with_outputs_of_order_one_that_differ_from_datum_to_datum(side: int) -> None:
    torch.manual_seed(0)
    made = R3GANGenerator(64, (3, side, side))(torch.randn(64, 64)).detach()
    assert 0.15 < float(made.std(0).mean()) < 1
    said = R3GANDiscriminator((3, side, side), 1)(2 * torch.rand(64, 3, side, side) - 1).detach()
    assert 0.05 < float(said.std()) < 5


def test_each_datum_is_made_and_judged_by_itself() -> None:
    torch.manual_seed(0)
    g, d = R3GANGenerator(5, (1, 14, 11), width=16, depth=2), R3GANDiscriminator((1, 14, 11), 2, width=16, depth=2)
    z = torch.randn(6, 5)
    x = g(z)
    torch.testing.assert_close(g(z[2:3]), x[2:3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(d(x)[2:3], d(x[2:3]), atol=1e-5, rtol=1e-5)


def test_no_pixel_counts_for_more_than_its_neighbours() -> None:
    """A discriminator whose weights are all alike weighs the pixels inside an image evenly: there are no seams."""
    d = R3GANDiscriminator((1, 32, 32), 1, width=32)
    with torch.no_grad():
        for p in d.parameters():
            p.fill_(1e-3)
    x = torch.ones(1, 1, 32, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(d(x).sum(), x)
    inner = slope[0, 0, 12:-12, 12:-12]
    torch.testing.assert_close(inner, inner.mean().expand(inner.shape), atol=0, rtol=1e-5)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_depth_is_the_blocks_of_each_level(depth: int) -> None:
    def blocks(network: nn.Module) -> int:
        return sum(isinstance(m, Bottleneck) for m in network.modules())

    assert blocks(R3GANGenerator(5, (1, 32, 32), depth=depth)) == 3 * depth  # 4, 8 and 16 pixels
    assert blocks(R3GANDiscriminator((1, 32, 32), 1, depth=depth)) == 2 * depth  # at 16 there are convolutions alone
    assert blocks(R3GANDiscriminator((1, 8, 8), 1, depth=depth)) == depth  # where 4 is half the size
