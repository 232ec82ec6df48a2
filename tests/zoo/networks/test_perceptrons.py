"""The networks of points, and those between images and grids of vectors, against their equations."""

import pytest
import torch
from torch.nn import functional as F

from genzoo.zoo.networks.mlp import MLP, GatedBlock
from genzoo.zoo.networks.resnet import SpatialDecoder, SpatialEncoder
from genzoo.zoo.networks.timed_mlp import TimedBlock, TimedMLP


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def silu(h: torch.Tensor) -> torch.Tensor:
    return h * torch.sigmoid(h)


def test_a_gated_block_is_its_equation() -> None:
    block, h = GatedBlock(6).double(), torch.randn(5, 6).double()
    a, b = (silu(h) @ block.linear.weight.T + block.linear.bias).chunk(2, 1)
    torch.testing.assert_close(block(h), h + a * torch.sigmoid(b))


def test_perceptrons_are_a_line_the_blocks_and_a_line() -> None:
    net, x = MLP(12, 4, width=6, depth=2).double(), torch.randn(5, 3, 4).double()
    h = net.blocks[1](net.blocks[0](F.linear(x.reshape(5, 12), net.inlet.weight, net.inlet.bias)))
    torch.testing.assert_close(net(x), F.linear(silu(h), net.outlet.weight, net.outlet.bias))
    assert len(net.blocks) == 2 and len(MLP(12, 4, width=6, depth=0).blocks) == 0


def test_a_timed_block_is_its_equation() -> None:
    block = TimedBlock(6).double()
    h, condition = torch.randn(2, 5, 6).double()
    a, b = (condition @ block.modulation.weight.T + block.modulation.bias).chunk(2, 1)
    first = silu(h) @ block.first.weight.T + block.first.bias
    second = silu(first * (1 + a) + b) @ block.second.weight.T + block.second.bias
    torch.testing.assert_close(block(h, condition), h + second)


def test_timed_perceptrons_are_told_the_level_and_the_class() -> None:
    net = TimedMLP(3, width=8, blocks=2, num_classes=4).double()
    x, level, labels = torch.randn(5, 3).double(), torch.linspace(-1, 1, 5).double(), torch.tensor([0, 1, 2, 3, 0])
    condition = silu(net.conditioning(level, labels))
    h = F.linear(x, net.inlet.weight, net.inlet.bias)
    for block in net.blocks:
        h = block(h, condition)
    torch.testing.assert_close(net(x, level, labels), F.linear(silu(h), net.outlet.weight, net.outlet.bias))
    assert (net(x, level + 0.3, labels) != net(x, level, labels)).any(1).all()
    assert (net(x, level, labels.flip(0)) != net(x, level, labels)).any(1).tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
@torch.no_grad()
def test_a_grid_of_vectors_has_seen_every_pixel_of_its_own_datum_alone(size: tuple[int, int]) -> None:
    encoder = SpatialEncoder((2, *size), 3, 1, width=4)
    x = torch.randn(3, 2, *size)
    z = encoder(x)
    assert z.shape == (3, 3, -(-size[0] // 2), -(-size[1] // 2))
    torch.testing.assert_close(encoder(x[1:2]), z[1:2])
    for place in range(2 * size[0] * size[1]):
        other = x[:1].clone()
        other.view(-1)[place] += 1
        assert not torch.equal(encoder(other), z[:1]), place
    features = encoder.norm.weight.numel()  # what the last layer sees is normalised over the datum
    seen = []
    encoder.norm.register_forward_hook(lambda module, given, out: seen.append(out))
    encoder(100 * x)
    torch.testing.assert_close(seen[0].flatten(1).var(1, correction=0), torch.ones(3), rtol=1e-3, atol=0)
    assert seen[0].shape[1] == features


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
@torch.no_grad()
def test_every_vector_of_a_grid_has_a_part_in_the_image_near_it(size: tuple[int, int]) -> None:
    decoder = SpatialDecoder(3, (2, *size), 1, width=4)
    rows, columns = -(-size[0] // 2), -(-size[1] // 2)
    z = torch.randn(2, 3, rows, columns)
    image = decoder(z)
    assert image.shape == (2, 2, *size)
    torch.testing.assert_close(decoder(z[1:]), image[1:])
    for row in range(rows):
        for column in range(columns):
            other = z[:1].clone()
            other[..., row, column] += 1
            changed = (decoder(other) != image[:1]).any(1)[0]
            assert changed[2 * row, 2 * column], (row, column)
