"""Attention in blocks against its equation, written with loops; rotations against complex numbers."""

import pytest
import torch

from genzoo.zoo.networks import attention
from genzoo.zoo.networks.attention import attend, rotate, rotations


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
