"""The products by oneDNN are those of torch, and so are their derivatives."""

import pytest
import torch
from torch.nn import functional as F

from genzoo.zoo.networks import linear as module
from genzoo.zoo.networks.linear import WORTH_IT, Linear, Product, linear, mkl_is_slow


def derivatives(product, x, weight, bias):
    """The product, the gradients of a curved function of it, and the gradients of a curved function of those."""
    output = product(x, weight, bias)
    first = torch.autograd.grad(output.square().sum(), (x, weight, bias), create_graph=True)
    return [output, *first, *torch.autograd.grad(sum(g.pow(3).mean() for g in first), (x, weight, bias))]


@pytest.mark.parametrize("out", [50, 10])
def test_products_and_their_first_and_second_derivatives_are_those_of_torch(out):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*size, requires_grad=True) for size in ((33, 20), (out, 20), (out,)))
    for ours, theirs in zip(*(derivatives(f, x, weight, bias) for f in (Product.apply, F.linear)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.detach().abs().max()))


def test_transposed_and_expanded_tensors_are_multiplied_as_they_are_meant():
    torch.manual_seed(0)
    x, weight = torch.randn(20, 33).t().requires_grad_(), torch.randn(20, 50).t()
    output = Product.apply(x, weight, None)
    torch.testing.assert_close(output, x @ weight.t())
    torch.testing.assert_close(
        torch.autograd.grad(output.sum(), x)[0], weight.sum(0).expand(33, 20), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("size", [(2, 3, 64), (64,), (0, 64), (4, 1024, 64), (2048, 64)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_torchs_for_inputs_of_any_size(size, bias, monkeypatch):
    torch.manual_seed(0)
    layer, x = Linear(64, 300, bias=bias), torch.randn(size)
    expected = F.linear(x, layer.weight, layer.bias)
    for slow in (True, False):
        monkeypatch.setattr(module, "mkl_is_slow", lambda slow=slow: slow)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_what_is_no_float32_on_a_cpu_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(Product, "apply", lambda *_: pytest.fail("by oneDNN"))
    x, weight = torch.randn(WORTH_IT // 64, 64), torch.randn(64, 64)
    assert torch.equal(linear(x.double(), weight.double()), F.linear(x.double(), weight.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    assert linear(x.to("meta"), weight.to("meta")).is_meta
    assert linear(x[:2], weight).shape == (2, 64)  # too small to be worth it


@pytest.mark.parametrize(
    ("data", "weight", "taken"),
    [
        ((1, 64), (64, 64), False),
        ((64, 128), (128, 128), False),
        ((1, 512), (1024, 512), True),
        ((WORTH_IT // 4096, 64), (64, 64), True),
    ],
)
@pytest.mark.parametrize("with_gradient", [True, False])
def test_onednn_multiplies_what_is_much(data, weight, taken, with_gradient, monkeypatch):
    """One datum by many weights is much, too: to fetch them takes as long as for many data."""
    made = []
    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(module, "product", lambda x, w, b: made.append(x) or F.linear(x, w, b))
    with torch.set_grad_enabled(with_gradient):
        y = linear(torch.randn(data), torch.randn(weight).requires_grad_())
    assert bool(made) == taken
    assert y.shape == (data[0], weight[0]) and y.requires_grad == with_gradient


def test_the_choice_is_one_for_the_process():
    assert mkl_is_slow() is mkl_is_slow()
