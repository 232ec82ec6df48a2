"""Attention in blocks against its equation, written with loops; rotations against complex numbers."""

import math

import pytest
import torch

from genzoo.zoo.networks import attention
from genzoo.zoo.networks.attention import attend, attend_to_all, grid_rotations, rotate, rotations
from genzoo.zoo.networks.transformer import Transformer


def by_its_equation(q, k, v):
    """(B, heads, t, d): query by query, each with the keys up to its own position."""
    t, length = q.shape[2], k.shape[2]
    outputs = []
    for i in range(t):
        seen = length - t + i + 1
        weights = (k[:, :, :seen] @ q[:, :, i, :, None] / q.shape[3] ** 0.5).softmax(2)
        outputs.append((weights * v[:, :, :seen]).sum(2))
    return torch.stack(outputs, 2)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 64])
@pytest.mark.parametrize(("t", "length"), [(5, 9), (7, 7), (6, 6), (1, 4), (2, 2)])
def test_attention_and_its_gradients_are_those_of_its_equation(rows, t, length, monkeypatch):
    monkeypatch.setattr(attention, "ROWS", rows)
    monkeypatch.setattr(attention, "BLOCKS", 5)
    torch.manual_seed(0)
    size = (2, 3)
    q, k, v = (torch.randn(*size, n, 4, dtype=torch.float64, requires_grad=True) for n in (t, length, length))
    weights = torch.randn(*size, t, 4, dtype=torch.float64)
    ours, expected = attend(q, k, v), by_its_equation(q, k, v)
    torch.testing.assert_close(ours, expected)
    for gradient, other in zip(
        *(torch.autograd.grad((o * weights).sum(), (q, k, v)) for o in (ours, expected)), strict=True
    ):
        torch.testing.assert_close(gradient, other)
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v), expected)


def test_what_is_projected_in_one_piece_gets_its_gradient_in_one_piece():
    """q, k and v as the views that a transformer has, on which no batch of matrices lies side by side."""
    torch.manual_seed(0)
    projected = torch.randn(2, 70, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    q, k, v = projected.permute(2, 0, 3, 1, 4).unbind()
    cos, sin = (table.double() for table in rotations(70, 6))
    gradients = [
        torch.autograd.grad(
            f(rotate(q, cos, sin), rotate(k, cos, sin), v).square().sum(), projected, retain_graph=True
        )
        for f in (attend, by_its_equation)
    ]
    torch.testing.assert_close(*gradients)


def test_a_causal_transformer_and_its_gradient_are_one_graph_for_the_compiler():
    torch.manual_seed(0)
    network = Transformer(16, 1, 2, max_length=150)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    results = []
    for one in (network, compiled):
        x = torch.randn(2, 150, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = one(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, *network.parameters()])))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_rotations_are_products_of_complex_numbers_and_so_are_their_gradients():
    torch.manual_seed(0)
    x = torch.randn(2, 20, 6, dtype=torch.float64, requires_grad=True)
    angles = torch.arange(20.0).double()[:, None] * 10_000.0 ** (-torch.arange(3.0).double() / 3)
    turned = torch.complex(x[..., :3], x[..., 3:]) * torch.polar(torch.ones_like(angles), angles)
    cos, sin = (table.double() for table in rotations(20, 6))
    ours, expected = rotate(x, cos, sin), torch.cat([turned.real, turned.imag], -1)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)  # the tables are in float32
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos, sin), x)
    assert torch.autograd.gradgradcheck(lambda x: rotate(x, cos, sin), x)


# ---- attention to all


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("few", [0, 1024])  # in half precision by PyTorch's kernel, and written out
def test_attention_to_all_and_its_gradients_are_those_of_its_equation(few, dtype, monkeypatch):
    monkeypatch.setattr(attention, "FEW", few)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 70, 8).to(dtype).requires_grad_() for _ in range(3))
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = torch.stack(
        [((exact[1] @ exact[0][:, :, i, :, None]).mT / 8**0.5).softmax(3) @ exact[2] for i in range(70)], 2
    ).squeeze(3)
    ours, weights = attend_to_all(q, k, v), torch.randn_like(expected)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(ours.double(), expected, rtol=tolerance, atol=tolerance)
    gradients = torch.autograd.grad(ours, (q, k, v), weights.to(dtype))
    for gradient, other in zip(gradients, torch.autograd.grad(expected, exact, weights), strict=True):
        torch.testing.assert_close(gradient.double(), other, rtol=tolerance, atol=tolerance)


# ---- rotations on a grid


@pytest.mark.parametrize("grid", [(11,), (4, 5)])
def test_attention_depends_on_how_far_apart_two_patches_are_alone(grid):
    """q_s · k_t of equal queries and keys everywhere is a function of t − s, and of no other pair of places."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 16).double()
    cos, sin = (table.double() for table in grid_rotations(grid, 16, base=100.0))
    n = math.prod(grid)
    scores = rotate(q.expand(n, 16), cos, sin) @ rotate(k.expand(n, 16), cos, sin).T
    places = torch.cartesian_prod(*map(torch.arange, grid)).view(n, -1).tolist()
    of_offset = {}
    for s, here in enumerate(places):
        for t, there in enumerate(places):
            offset = tuple(b - a for a, b in zip(here, there, strict=True))
            of_offset.setdefault(offset, []).append(float(scores[s, t]))
    assert len(of_offset) == math.prod(2 * side - 1 for side in grid)
    assert all(max(found) - min(found) < 1e-5 for found in of_offset.values())
    means = torch.tensor(sorted(found[0] for found in of_offset.values()))
    assert float(means.diff().min()) > 1e-5  # and no two distances are alike


def test_rotations_on_a_grid_are_products_of_complex_numbers():
    cos, sin = grid_rotations((3, 4), 8, base=100.0)
    x = torch.randn(12, 8).double()
    turned = torch.complex(x[:, :4], x[:, 4:])
    for n in range(12):
        row, column = divmod(n, 4)
        angles = [row, row / 10, column, column / 10]  # 100^(−2i/4)
        turned[n] *= torch.polar(torch.ones(4).double(), torch.tensor(angles).double())
    torch.testing.assert_close(rotate(x, cos, sin), torch.cat([turned.real, turned.imag], 1), atol=1e-6, rtol=0)


def test_a_line_is_a_grid_of_one_axis():
    for found, expected in zip(grid_rotations((9,), 8), rotations(9, 8), strict=True):
        assert torch.equal(found, expected)
