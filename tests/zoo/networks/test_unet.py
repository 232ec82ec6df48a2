"""The U-Net: every size of image, what it is told, and that what is written out is what it stands for."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from genzoo.zoo.networks.conditioning import FREQUENCIES, Conditioning
from genzoo.zoo.networks.unet import Attention, Plan, ResidualBlock, UNet

SHAPES = [(1, 8, 8), (1, 7, 9), (1, 28, 28), (3, 32, 32), (3, 17, 30), (2, 1, 1)]


def lively(net: nn.Module) -> nn.Module:
    """The network with weights so large that everything in it makes a difference."""
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter, gain=1.5)
    return net


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_takes_images_of_any_size_and_every_parameter_learns_from_the_first_step(shape, attention):
    net = UNet(shape, width=16, multipliers=(1, 2, 2), attention=attention, num_classes=3)
    x = torch.randn(3, *shape)
    y = net(x, torch.randn(3), torch.tensor([0, 2, 3]))
    assert y.shape == x.shape
    (y - torch.randn_like(y)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert bool(parameter.grad.abs().sum() > 0), name


def test_begins_nearly_at_zero():
    x = torch.randn(16, 1, 28, 28)
    assert float(UNet((1, 28, 28), attention=True)(x, torch.randn(16)).detach().std()) < 0.3


@pytest.mark.parametrize(("shape", "patch"), [((1, 28, 28), None), ((1, 8, 8), None), ((3, 17, 30), 4)])
def test_every_pixel_depends_on_every_pixel_through_attention(shape, patch):
    net = lively(UNet(shape, width=16, patch=patch, attention=True)).double()
    x = torch.randn(1, *shape, dtype=torch.double, requires_grad=True)
    for row, column in ((0, 0), (shape[1] - 1, shape[2] // 2)):
        (gradient,) = torch.autograd.grad(net(x, torch.zeros(1))[0, 0, row, column], x)
        assert bool((gradient != 0).all())


def test_a_datum_does_not_depend_on_its_batch():
    net = lively(UNet((1, 8, 8), attention=True, num_classes=2)).double()
    x, c_noise, labels = torch.randn(4, 1, 8, 8).double(), torch.randn(4).double(), torch.tensor([0, 1, 2, 0])
    alone = torch.cat([net(x[i : i + 1], c_noise[i : i + 1], labels[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(x, c_noise, labels), alone)


def test_a_size_that_is_no_multiple_of_the_patch_is_filled_up_with_zeros():
    odd, even = UNet((1, 15, 18), patch=4), UNet((1, 16, 20), patch=4)
    even.load_state_dict(odd.state_dict())
    x, c_noise = torch.randn(2, 1, 15, 18), torch.randn(2)
    torch.testing.assert_close(odd(x, c_noise), even(F.pad(x, (0, 2, 0, 1)), c_noise)[..., :15, :18])


def test_moves_with_the_image():
    """Shifted by a multiple of patch and halvings, away from the borders, the output is shifted, too."""
    net = lively(UNet((1, 48, 48), width=16, multipliers=(1, 1), patch=2)).double()
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
            module.padding_mode = "circular"
            module._reversed_padding_repeated_twice = [1, 1, 1, 1]
    x, c_noise = torch.randn(1, 1, 48, 48).double(), torch.zeros(1).double()
    moved = net(x.roll((4, 8), (2, 3)), c_noise)
    torch.testing.assert_close(moved, net(x, c_noise).roll((4, 8), (2, 3)))
    assert not torch.allclose(net(x.roll(1, 3), c_noise), net(x, c_noise).roll(1, 3))  # a patch is no pixel


def test_noise_level_and_class_make_a_difference():
    net = lively(UNet((1, 8, 8), num_classes=2))
    x, zero, one = torch.randn(1, 1, 8, 8), torch.zeros(1), torch.ones(1)
    outputs = [net(x, zero, torch.tensor([y])) for y in range(3)] + [net(x, one), net(x, zero + 0.1)]
    for i, a in enumerate(outputs):
        for b in outputs[:i]:
            assert float((a - b).detach().square().mean().sqrt()) > 1e-3
    assert torch.equal(outputs[2], net(x, zero))  # the label after the last, like no label, says "no class"


def test_dropout_acts_in_training_alone():
    net = lively(UNet((1, 8, 8), dropout=0.5))
    x, c_noise = torch.randn(2, 1, 8, 8), torch.zeros(2)
    assert not torch.equal(net(x, c_noise), net(x, c_noise))
    net.eval()
    assert torch.equal(net(x, c_noise), net(x, c_noise))


@pytest.mark.parametrize("size", [(4, 4), (7, 5)])
def test_attention_is_that_of_pytorch(size):
    attention = lively(Attention(64)).double()
    h = torch.randn(2, 64, *size).double()
    projected = attention.queries_keys_values(attention.norm(h)).flatten(2).transpose(1, 2)
    q, k, v = (p.unflatten(2, (2, 32)).transpose(1, 2) for p in projected.chunk(3, dim=2))
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(attention(h), h + attention.outlet(attended.reshape(h.shape)))


def test_attention_does_not_know_where_a_pixel_is():
    attention, order = lively(Attention(32)).double(), torch.randperm(20)
    h = torch.randn(2, 32, 4, 5).double()
    moved = h.flatten(2)[..., order].reshape(h.shape)
    torch.testing.assert_close(attention(moved).flatten(2), attention(h).flatten(2)[..., order])


def test_modulation_is_affine_in_the_normalised_branch():
    block = lively(ResidualBlock(16, 3, 0.0)).double()
    nn.init.zeros_(block.modulation.weight)
    with torch.no_grad():
        block.modulation.bias.copy_(torch.cat([torch.full((16,), 0.5), torch.full((16,), -0.25)]))
    h = torch.randn(2, 16, 4, 4).double()
    branch = block.first(h)
    normalised = (branch - branch.mean((1, 2, 3), keepdim=True)) / (
        branch.var((1, 2, 3), keepdim=True, correction=0) + 1e-5
    ).sqrt()
    expected = h + block.second(F.silu(1.5 * normalised - 0.25))
    torch.testing.assert_close(block(h, torch.zeros(2, 3).double()), expected)


def test_fourier_features_know_the_distance_of_noise_levels():
    """cos a cos b + sin a sin b = cos(a − b): the features' inner product depends on the difference alone."""
    seen = []
    conditioning = Conditioning(8)
    conditioning.noise[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    conditioning(torch.tensor([-2.5, -2.3, 0.4, 0.6, 2.5]))
    inner = seen[0] @ seen[0].T
    torch.testing.assert_close(inner.diagonal(), torch.full((5,), float(FREQUENCIES)))
    expected = sum(math.cos(2 * math.pi * 0.2 / 2 ** (3 - 5 * i / (FREQUENCIES - 1))) for i in range(FREQUENCIES))
    assert float(inner[0, 1]) == pytest.approx(expected, rel=1e-4)
    assert float(inner[2, 3]) == pytest.approx(expected, rel=1e-4)
    assert float(inner[0, 4]) < 0.7 * FREQUENCIES  # the ends are not taken for each other


def test_learns_an_answer_that_depends_on_the_noise_level():
    """x cos c, which no network blind to c can say better than with E cos² c = ½ of its variance."""
    net = UNet((1, 8, 8), width=16)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for _ in range(60):
        x, c_noise = torch.randn(32, 1, 8, 8), 2 * math.pi * torch.rand(32)
        loss = (net(x, c_noise) - x * c_noise.cos()[:, None, None, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.15


def test_half_the_precision_gives_the_same_answer_up_to_its_rounding():
    net = lively(UNet((1, 28, 28), attention=True))
    x, c_noise = torch.randn(4, 1, 28, 28), torch.randn(4)
    exact = net(x, c_noise)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(x, c_noise)
    assert rounded.dtype == torch.bfloat16
    assert float((rounded - exact).detach().std() / exact.detach().std()) < 0.03


def test_is_one_graph_for_the_compiler():
    net = UNet((1, 17, 18), width=16, attention=True, num_classes=2)
    x, c_noise = torch.randn(2, 1, 17, 18), torch.randn(2)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, c_noise), net(x, c_noise))


@pytest.mark.parametrize(
    ("shape", "plan"),
    [
        ((1, 8, 8), Plan(1, 32, [1, 2])),
        ((1, 12, 15), Plan(1, 32, [1, 2, 4])),
        ((1, 16, 16), Plan(2, 64, [1, 2], True)),
        ((1, 28, 28), Plan(2, 64, [1, 2, 2], True)),
        ((3, 32, 40), Plan(2, 64, [1, 2, 2], True)),
        ((3, 64, 64), Plan(2, 32, [1, 2, 4, 4], True)),
        ((3, 128, 128), Plan(4, 64, [1, 2, 2, 2], True)),
        ((3, 256, 256), Plan(8, 192, [1, 1, 1, 1], True)),
    ],
)
def test_its_size_follows_from_the_images(shape, plan):
    """Down to about four pixels a side, where they attend to each other; a patch's numbers fit through."""
    assert Plan.of(shape) == plan and plan.width >= shape[0] * plan.patch**2
    assert 2 <= min(shape[1:]) / plan.patch / 2 ** (len(plan.multipliers) - 1) <= 4
    if shape[1] <= 64:
        net = UNet(shape, multipliers=None, num_classes=3)
        x = torch.randn(2, *shape)
        assert net(x, torch.randn(2), torch.tensor([0, 3])).shape == x.shape
        assert [stack[0].first.out_channels for stack in net.way_in] == [plan.width * m for m in plan.multipliers]
        assert (net.attention is not None) == plan.attention and net.patch == plan.patch


def test_what_is_given_goes_before_what_follows_from_the_images():
    net = UNet((3, 32, 32), multipliers=None, width=24, attention=False, patch=4)
    assert (net.patch, net.inlet.out_channels, net.attention) == (4, 24, None)


def test_with_stated_levels_nothing_follows_from_the_images():
    """So are those of weights that were published before anything did."""
    stated = UNet((3, 128, 128), multipliers=(1, 2))
    assert (stated.patch, stated.inlet.out_channels, stated.attention) == (2, 32, None)
    unstated = UNet((3, 128, 128))
    assert stated.state_dict().keys() == unstated.state_dict().keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shape": (2,)}, "images"),
        ({"multipliers": ()}, "at least one level"),
        ({"blocks": 0}, "blocks=0"),
        ({"width": 0}, "width=0"),
        ({"patch": 0}, "patch=0"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_refuses_what_makes_no_network(arguments, said):
    with pytest.raises(ValueError, match=said):
        UNet(**{"shape": (1, 8, 8)} | arguments)


def test_refuses_labels_without_classes():
    with pytest.raises(ValueError, match="without classes"):
        UNet((1, 8, 8))(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long))
