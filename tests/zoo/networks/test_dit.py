"""The diffusion transformer: every shape, what each patch sees, where it is, and what it costs."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from genzoo.zoo.muon import matrix_groups
from genzoo.zoo.networks.attention import grid_rotations, rotate
from genzoo.zoo.networks.dit import BASE, Block, DiT, Plan
from genzoo.zoo.networks.patches import folded, unfolded

SHAPES = [
    (1, 8, 8),
    (1, 7, 9),
    (1, 28, 28),
    (3, 30, 45),
    (3, 64, 64),
    (2, 1, 1),
    (16, 4, 4),
    (1, 96),
    (3, 50),
    (2, 1),
]
SMALL = {"width": 32, "depth": 2, "heads": 2}


def lively(net: nn.Module) -> nn.Module:
    """The network with weights so large that everything in it makes a difference."""
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter, gain=1.5)
        else:
            nn.init.normal_(parameter, mean=float(parameter.detach().mean().round()), std=0.3)
    return net


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


# ---- patches


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_takes_every_shape_in_every_patch_and_every_parameter_learns_from_the_first_step(shape, patch):
    net = DiT(shape, patch=patch, num_classes=3, **SMALL)
    x = torch.randn(3, *shape)
    y = net(x, torch.randn(3), torch.tensor([0, 2, 3]))
    assert y.shape == x.shape
    (y - torch.randn_like(y)).square().sum().backward()
    alone = math.prod(net.grid) == 1  # one patch attends to itself, whatever it asks
    for name, parameter in net.named_parameters():
        asks = name.split(".")[-2] in ("queries", "keys", "query_norm", "key_norm")
        assert bool(parameter.grad.abs().sum() > 0) or (alone and asks), name


def test_a_size_that_is_no_multiple_of_the_patch_is_filled_up_with_zeros():
    odd, even = DiT((1, 15, 18), patch=4, **SMALL), DiT((1, 16, 20), patch=4, **SMALL)
    even.load_state_dict(odd.state_dict())
    x, c_noise = torch.randn(2, 1, 15, 18), torch.randn(2)
    torch.testing.assert_close(odd(x, c_noise), even(F.pad(x, (0, 2, 0, 1)), c_noise)[..., :15, :18])


def test_a_series_is_an_image_of_one_row():
    """But for the rotations and waves, which of an image are by both of its axes."""
    series, image = (lively(DiT(shape, patch=1, **SMALL)).double() for shape in ((2, 9), (2, 1, 9)))
    image.load_state_dict(series.state_dict())
    image.cos, image.sin, image.places = series.cos, series.sin, series.places
    x, c_noise = torch.randn(3, 2, 9).double(), torch.randn(3).double()
    torch.testing.assert_close(series(x, c_noise), image(x[:, :, None], c_noise)[:, :, 0])


# ---- where a patch is


@pytest.mark.parametrize("shape", [(2, 8, 10), (2, 24)])
def test_without_its_waves_the_whole_grid_may_be_anywhere(shape):
    """Every patch moved equally far, as if the image were a part of a larger one."""
    net = lively(DiT(shape, patch=2, **SMALL)).double()
    net.places.zero_()
    x, c_noise = torch.randn(2, *shape).double(), torch.randn(2).double()
    before = net(x, c_noise)
    larger = [side + 5 for side in net.grid]
    index = torch.arange(math.prod(larger)).view(larger)[(..., *(slice(5, None) for _ in larger))].flatten()
    net.cos, net.sin = (table[index].double() for table in grid_rotations(larger, 16, BASE))
    torch.testing.assert_close(net(x, c_noise), before, atol=1e-5, rtol=1e-5)
    net.cos, net.sin = net.cos.flip(0), net.sin.flip(0)  # mirrored, it is another one
    assert not torch.allclose(net(x, c_noise), before, atol=1e-2)


def test_without_waves_and_rotations_it_does_not_know_where_a_patch_is():
    net = lively(DiT((2, 8, 8), patch=2, **SMALL)).double()
    x, c_noise, order = torch.randn(3, 2, 8, 8).double(), torch.randn(3).double(), torch.randperm(16)
    moved = unfolded(folded(x, 2)[:, order], (2, 8, 8), 2)

    def of_moved_and_moved():
        return net(moved, c_noise), unfolded(folded(net(x, c_noise), 2)[:, order], (2, 8, 8), 2)

    assert not torch.allclose(*of_moved_and_moved(), atol=1e-2)
    net.places.zero_()
    assert not torch.allclose(*of_moved_and_moved(), atol=1e-2)
    net.cos, net.sin = torch.ones_like(net.cos), torch.zeros_like(net.sin)
    torch.testing.assert_close(*of_moved_and_moved())


def test_of_equal_patches_only_the_waves_tell_where_each_is():
    net, c_noise = lively(DiT((2, 6, 6), patch=1, **SMALL)).double(), torch.randn(2).double()
    constant = torch.randn(2, 2, 1, 1).double().expand(2, 2, 6, 6)
    assert float(net(constant, c_noise).detach().flatten(2).std(2).min()) > 0.1
    net.places.zero_()
    assert float(net(constant, c_noise).detach().flatten(2).std(2).max()) < 1e-9


@pytest.mark.parametrize(("shape", "patch"), [((1, 8, 8), 1), ((3, 17, 30), 8), ((1, 28, 28), None), ((2, 31), 4)])
def test_every_number_depends_on_every_number(shape, patch):
    net = lively(DiT(shape, patch=patch, **SMALL)).double()
    x = torch.randn(1, *shape, dtype=torch.double, requires_grad=True)
    for place in (0, math.prod(shape) // 2, -1):
        (gradient,) = torch.autograd.grad(net(x, torch.zeros(1).double()).flatten()[place], x)
        assert bool((gradient != 0).all())


def test_a_datum_does_not_depend_on_its_batch():
    net = lively(DiT((1, 8, 8), num_classes=2, **SMALL)).double()
    x, c_noise, labels = torch.randn(4, 1, 8, 8).double(), torch.randn(4).double(), torch.tensor([0, 1, 2, 0])
    alone = torch.cat([net(x[i : i + 1], c_noise[i : i + 1], labels[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(x, c_noise, labels), alone)


# ---- the blocks


def test_a_block_is_its_equation():
    block = lively(Block(16, 2, 0.0)).double()
    h, condition = torch.randn(3, 6, 16).double(), torch.randn(3, 16).double()
    cos, sin = (table.double() for table in grid_rotations((2, 3), 8))

    def norm(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()

    a_1, b_1, g_1, a_2, b_2, g_2 = (condition @ block.modulation.weight.T + block.modulation.bias)[:, None].chunk(
        6, 2
    )
    seen = (1 + a_1) * norm(h) + b_1
    heads = []
    for i in range(2):
        q, k, v = (seen @ part.weight[8 * i : 8 * i + 8].T for part in (block.queries, block.keys, block.values))
        q, k = norm(q) * block.query_norm.weight, norm(k) * block.key_norm.weight
        heads.append((rotate(q, cos, sin) @ rotate(k, cos, sin).mT / math.sqrt(8)).softmax(-1) @ v)
    expected = h + g_1 * (torch.cat(heads, 2) @ block.attended.weight.T)
    seen = (1 + a_2) * norm(expected) + b_2
    gate = seen @ block.gate.weight.T
    inner = gate * torch.sigmoid(gate) * (seen @ block.expand.weight.T)
    expected = expected + g_2 * (inner @ block.contract.weight.T)
    torch.testing.assert_close(block(h, condition, cos, sin), expected)


def test_queries_and_keys_of_any_size_attend_alike():
    block = lively(Block(16, 2, 0.0)).double()
    h, (cos, sin) = torch.randn(2, 6, 16).double(), grid_rotations((6,), 8)
    before = block.attention(h, cos, sin)
    with torch.no_grad():
        block.queries.weight.mul_(1000)
        block.keys.weight.mul_(1000)
    torch.testing.assert_close(block.attention(h, cos, sin), before, rtol=1e-3, atol=1e-3)


def test_begins_nearly_at_zero_and_each_block_nearly_as_the_identity():
    net, x = DiT((1, 28, 28)), torch.randn(16, 1, 28, 28)
    assert float(net(x, torch.randn(16)).detach().std()) < 0.1
    block, h = net.blocks[0], torch.randn(16, 49, 256)
    changed = block(h, F.silu(net.conditioning(torch.randn(16))), net.cos, net.sin) - h
    assert 0 < float(changed.detach().std()) < 0.05


def test_with_its_modulations_at_zero_a_block_is_the_identity():
    """The paper's own beginning."""
    block, h = lively(Block(16, 2, 0.0)), torch.randn(2, 6, 16)
    nn.init.zeros_(block.modulation.weight)
    nn.init.zeros_(block.modulation.bias)
    assert torch.equal(block(h, torch.randn(2, 16), *grid_rotations((6,), 8)), h)


def test_noise_level_and_class_make_a_difference():
    net = lively(DiT((1, 8, 8), num_classes=2, **SMALL))
    x, zero, one = torch.randn(1, 1, 8, 8), torch.zeros(1), torch.ones(1)
    outputs = [net(x, zero, torch.tensor([y])) for y in range(3)] + [net(x, one), net(x, zero + 0.1)]
    for i, a in enumerate(outputs):
        for b in outputs[:i]:
            assert float((a - b).detach().square().mean().sqrt()) > 1e-3
    assert torch.equal(outputs[2], net(x, zero))  # the label after the last, like no label, says "no class"


def test_dropout_acts_in_training_alone():
    net = lively(DiT((1, 8, 8), dropout=0.5, **SMALL))
    x, c_noise = torch.randn(2, 1, 8, 8), torch.zeros(2)
    assert not torch.equal(net(x, c_noise), net(x, c_noise))
    net.eval()
    assert torch.equal(net(x, c_noise), net(x, c_noise))


# ---- memory, precision, compiler, optimiser, file


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointing_keeps_less_and_gives_the_same_gradients(dropout):
    kept, gradients = [], []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        net = lively(DiT((1, 16, 16), patch=2, checkpointing=checkpointing, dropout=dropout, **SMALL))
        x, sizes = torch.randn(4, 1, 16, 16), {}

        def pack(t, sizes=sizes):
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = net(x, torch.zeros(4)).square().sum()
        kept.append(sum(sizes.values()) - sum(p.numel() * 4 for p in net.parameters()))
        loss.backward()
        gradients.append([p.grad for p in net.parameters()])
    assert kept[1] < kept[0] / 3
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_half_the_precision_gives_the_same_answer_up_to_its_rounding():
    net = lively(DiT((1, 28, 28)))
    x, c_noise = torch.randn(4, 1, 28, 28), torch.randn(4)
    exact = net(x, c_noise)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(x, c_noise)
    assert rounded.dtype == torch.bfloat16
    assert float((rounded - exact).detach().std() / exact.detach().std()) < 0.03


@pytest.mark.parametrize("shape", [(1, 17, 18), (2, 31)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_is_one_graph_for_the_compiler(shape, checkpointing):
    net = DiT(shape, num_classes=2, checkpointing=checkpointing, **SMALL)
    x, c_noise = torch.randn(2, *shape), torch.randn(2)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, c_noise), net(x, c_noise))


def test_the_optimisers_matrices_are_those_between_inlet_and_outlet():
    net = DiT((1, 8, 8), num_classes=2, **SMALL)
    names = {id(p): name for name, p in net.named_parameters()}
    matrices, others = ({names[id(p)] for p in group["params"]} for group in matrix_groups(net, net.hidden))
    parts = "queries keys values attended gate expand contract modulation"
    expected = {f"blocks.{i}.{part}.weight" for i in range(2) for part in parts.split()}
    assert matrices == expected | {"modulation.weight"}
    assert {"inlet.weight", "outlet.weight", "conditioning.classes.weight"} < others
    assert matrices | others == set(names.values())


def test_its_weights_are_the_same_for_data_of_any_size():
    """Of the same patches; no place is in a file."""
    states = [DiT(shape, patch=2, **SMALL).state_dict() for shape in ((1, 8, 8), (1, 31, 64))]
    assert {k: v.shape for k, v in states[0].items()} == {k: v.shape for k, v in states[1].items()}
    a, b = (lively(DiT((1, 8, 8), **SMALL)) for _ in range(2))
    x, c_noise = torch.randn(2, 1, 8, 8), torch.randn(2)
    assert not torch.equal(a(x, c_noise), b(x, c_noise))
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(x, c_noise), b(x, c_noise))


def trained(net, target, steps):
    """The loss at last, of what is to say target(x) of noise x."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(steps):
        x = torch.randn(32, *net.shape)
        loss = (net(x, torch.zeros(32)) - target(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_learns_what_only_a_far_patch_knows():
    net = DiT((1, 4, 4), patch=1, width=32, depth=2, heads=2)
    assert trained(net, lambda x: x.roll((2, 2), (2, 3)), 150) < 0.2


def test_learns_where_it_is():
    """What an image is on average, which is all there is to say where there is nothing but noise."""
    net, mean = DiT((1, 4, 4), patch=1, width=32, depth=2, heads=2), torch.randn(1, 4, 4)
    assert trained(net, lambda x: mean.expand_as(x), 60) < 0.05


# ---- sizes


@pytest.mark.parametrize(
    ("shape", "plan"),
    [
        ((1, 8, 8), Plan(1, 128, 4, 2)),
        ((16, 16, 16), Plan(2, 128, 4, 2)),
        ((1, 28, 28), Plan(4, 256, 6, 4)),
        ((3, 30, 45), Plan(4, 256, 6, 4)),
        ((3, 32, 32), Plan(4, 256, 6, 4)),
        ((3, 64, 64), Plan(8, 256, 6, 4)),
        ((16, 32, 32), Plan(4, 256, 6, 4)),
        ((8, 64, 64), Plan(8, 512, 6, 8)),
        ((3, 256, 256), Plan(8, 256, 6, 4)),
        ((1, 96), Plan(1, 256, 6, 4)),
        ((3, 1000), Plan(8, 256, 6, 4)),
        ((2, 12), Plan(1, 128, 4, 2)),
    ],
)
def test_its_size_follows_from_the_data(shape, plan):
    """As few patches as attention is cheap for, and wide enough for the numbers of each."""
    assert Plan.of(shape) == plan and plan.width >= shape[0] * plan.patch ** len(shape[1:])
    assert DiT(shape).grid == tuple(math.ceil(side / plan.patch) for side in shape[1:])


def test_what_is_given_goes_before_what_follows_from_the_data():
    assert Plan.of((3, 32, 32), patch=2, width=96, heads=3) == Plan(2, 96, 6, 3)
    assert Plan.of((3, 32, 32), width=40) == Plan(4, 40, 6, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shape": (2,)}, "images"),
        ({"shape": (2, 3, 4, 5)}, "images"),
        ({"patch": 0}, "patch=0"),
        ({"width": 0}, "width=0"),
        ({"width": 36, "heads": 2}, "multiple of 4 × heads"),
        ({"depth": 0}, "depth=0"),
        ({"heads": 0}, "heads=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_refuses_what_makes_no_network(arguments, said):
    with pytest.raises(ValueError, match=said):
        DiT(**{"shape": (1, 8, 8)} | arguments)


def test_refuses_labels_without_classes_and_data_of_another_shape():
    net = DiT((1, 8, 8), **SMALL)
    with pytest.raises(ValueError, match="without classes"):
        net(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"shape=\(1, 8, 8\), but was given data of \(1, 8, 9\)"):
        net(torch.zeros(1, 1, 8, 9), torch.zeros(1))


@pytest.mark.parametrize(("width", "heads"), [(32, 1), (128, 2), (160, 4), (200, 5), (256, 4), (328, 41)])
def test_heads_are_of_64_numbers_or_the_next_fewer_that_fit(width: int, heads: int) -> None:
    network = DiT((1, 4, 4), patch=1, width=width, depth=1)
    assert network.blocks[0].heads == heads and network.blocks[0].queries.weight.shape[0] // heads <= 64
