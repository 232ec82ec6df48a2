"""Muon against the singular value decomposition, and against PyTorch's own optimisers."""

import copy
import pickle

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from genzoo.zoo import DDPM, muon
from genzoo.zoo.muon import Muon, orthogonalised


def problem(seed=0):
    """Two matrices, a vector, and gradients of theirs that change from step to step."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.nn.Parameter(torch.randn(n, generator=generator)) for n in ((6, 4), (4, 9), (5,))]
    gradients = [[torch.randn(w.shape, generator=generator) for w in weights] for _ in range(7)]
    return weights, gradients


def follow(optimizer, weights, gradients):
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()


def quintic(matrix, steps=5):
    """Jordan's iteration as he states it: a transposed copy, a X + (b A + c A²) X, in the precision of the matrix."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


SIZES = [(32, 32), (16, 48), (48, 16), (20, 30), (30, 20), (8, 72), (1, 5), (5, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES[:3])
def test_singular_values_come_near_one_and_singular_vectors_stay(size, dtype):
    torch.manual_seed(0)
    matrix = torch.randn(size)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    along = u.T @ orthogonalised(matrix.to(dtype)).float() @ v.T
    values = along.diagonal()
    assert 0.65 < values.min() < values.max() < 1.25
    assert (along - values.diag()).abs().max() < (0.05 if dtype == torch.bfloat16 else 1e-5)
    nothing = torch.zeros(size, dtype=dtype)
    assert torch.equal(orthogonalised(nothing), nothing)


@pytest.mark.parametrize("size", SIZES)
def test_of_a_stack_each_matrix_is_iterated_as_if_alone(size):
    torch.manual_seed(0)
    stack = torch.randn(3, *size, dtype=torch.float64)
    for steps in (1, 2, 5):
        expected = torch.stack([quintic(matrix, steps) for matrix in stack])
        torch.testing.assert_close(orthogonalised(stack, steps), expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(orthogonalised(1000 * stack[0], steps), expected[0], atol=1e-12, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):  # which has no say in it
        torch.testing.assert_close(orthogonalised(stack.float()).double(), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("rank", [1, 3])
def test_what_a_matrix_has_nothing_of_stays_nothing(rank):
    """Rounding may take a singular value of 0 to a negative one of the Gram matrix, which grows with each step."""
    torch.manual_seed(0)
    matrix = torch.randn(64, rank, dtype=torch.float64) @ torch.randn(rank, 400, dtype=torch.float64)
    torch.testing.assert_close(orthogonalised(matrix.float()).double(), quintic(matrix), atol=5e-5, rtol=0)


def reference(weights, gradients, lr, momentum, weight_decay, dtype):
    """Muon's steps of matrices, one by one."""
    momenta = [torch.zeros_like(w) for w in weights]
    for step in gradients:
        for i, (weight, gradient) in enumerate(zip(weights, step, strict=True)):
            momenta[i] = momentum * momenta[i] + (1 - momentum) * gradient
            ahead = (1 - momentum) * gradient + momentum * momenta[i]
            rate = lr * max(1, weight.shape[0] / weight.shape[1]) ** 0.5
            weights[i] = (1 - lr * weight_decay) * weight - rate * quintic(ahead.to(dtype)).to(weight.dtype)
    return weights


@pytest.mark.parametrize("fast", [False, True], ids=["float32", "bfloat16"])
def test_matrices_take_the_steps_of_the_formula_and_of_pytorch_s_muon(fast, monkeypatch):
    """Several of one shape, alone and transposed; PyTorch's iterates in bfloat16, and here also in float32."""
    monkeypatch.setattr(muon, "fast_bfloat16", lambda device: fast)
    monkeypatch.setattr(muon, "AT_ONCE", 2 * 24 * 8)  # two of the largest at a time
    torch.manual_seed(0)
    shapes = [(6, 4), (4, 9), (8, 24), (24, 8), (8, 24), (8, 24), (9, 4), (8, 8)]
    start = [torch.randn(shape) for shape in shapes]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(7)]
    rates = {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.2}
    ours = [torch.nn.Parameter(w.clone()) for w in start]
    follow(Muon([{"params": ours, "matrices": True}], **rates), ours, gradients)
    expected = reference(
        [w.clone() for w in start], gradients, **rates, dtype=torch.bfloat16 if fast else torch.float32
    )
    for mine, one in zip(ours, expected, strict=True):  # bfloat16 rounds in another place for another order
        torch.testing.assert_close(mine.detach(), one, atol=0.02 if fast else 2e-6, rtol=0)
    if hasattr(torch.optim, "Muon"):  # PyTorch 2.9 and later
        theirs = [torch.nn.Parameter(w.clone()) for w in start]
        if not fast:
            monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
        follow(torch.optim.Muon(theirs, **rates), theirs, gradients)
        for mine, one in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("amx", [False, True])
def test_long_matrices_are_in_float32_where_half_precision_saves_less_than_their_form(amx, monkeypatch):
    monkeypatch.setattr(muon, "fast_bfloat16", lambda device: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    torch.manual_seed(0)
    for size in ((8, 72), (72, 8), (8, 16)):
        weight, gradient = torch.nn.Parameter(torch.zeros(size)), torch.randn(size)
        follow(Muon([{"params": [weight], "matrices": True}], lr=1.0, momentum=0.0), [weight], [[gradient]])
        off = (weight.detach() + quintic(gradient) * max(1, size[0] / size[1]) ** 0.5).abs().max()
        single = max(size) > muon.LONG * min(size) and not amx
        assert off < 1e-4 if single else 1e-4 < off < 0.05


def test_what_is_no_matrix_takes_the_steps_of_pytorch_s_adamw():
    ours, gradients = problem()
    theirs, _ = problem()
    kernel = torch.randn(6, 2, 3, 3).contiguous(memory_format=torch.channels_last)  # as the first of a network is
    ours, theirs = [*ours[2:], torch.nn.Parameter(kernel.clone())], [*theirs[2:], torch.nn.Parameter(kernel.clone())]
    gradients = [[*step[2:], torch.randn(6, 2, 3, 3)] for step in gradients]
    matrix = torch.nn.Parameter(torch.ones(2, 2))
    follow(Muon([{"params": [matrix], "matrices": True}, {"params": ours}], adam_lr=0.01), ours, gradients)
    adam = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.98), weight_decay=0.0, fused=False)
    follow(adam, theirs, gradients)
    for mine, one in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, one, atol=1e-6, rtol=1e-5)
    assert torch.equal(matrix, torch.ones(2, 2))  # which has no gradient


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (2, 0, 3, 1)])
def test_a_kernel_takes_the_step_of_its_matrix(order, monkeypatch):
    """(out, in, height, width) as (out, in · height · width), however it lies in memory."""
    monkeypatch.setattr(muon, "fast_bfloat16", lambda device: False)
    torch.manual_seed(0)
    lies = torch.randn(8, 4, 3, 3).permute(order).contiguous()
    kernel = torch.nn.Parameter(lies.permute([order.index(dim) for dim in range(4)]))
    strides = kernel.stride()
    matrix = torch.nn.Parameter(kernel.detach().flatten(1).clone())
    gradients = [torch.randn(8, 4, 3, 3) for _ in range(3)]
    follow(Muon([{"params": [kernel], "matrices": True}]), [kernel], [[g] for g in gradients])
    follow(Muon([{"params": [matrix], "matrices": True}]), [matrix], [[g.flatten(1)] for g in gradients])
    torch.testing.assert_close(kernel.flatten(1), matrix, atol=1e-6, rtol=0)
    assert kernel.stride() == strides


@pytest.mark.parametrize(
    ("shape", "sizes"), [((1, 8, 8), {"attention": True}), ((1, 8, 8), {"network": "dit"}), ((2,), {}), ((2, 9), {})]
)
def test_networks_that_denoise_keep_their_hidden_matrices_apart(shape, sizes):
    model = DDPM(shape, 17 if len(shape) == 3 else None, width=16, num_classes=3, conditional=True, **sizes)
    matrices, others = model.parameter_groups()
    names = {id(p): name for name, p in model.named_parameters()}
    assert sorted(names[id(p)] for group in (matrices, others) for p in group["params"]) == sorted(names.values())
    assert matrices["matrices"] and "matrices" not in others
    assert all(p.ndim >= 2 for p in matrices["params"])
    left = {names[id(p)].removeprefix("network.").partition(".")[0] for p in others["params"] if p.ndim >= 2}
    assert left == {"conditioning", "inlet", "outlet"}


def test_of_a_network_of_one_s_own_all_parameters_are_alike():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = torch.nn.Linear(2, 2)

    model = DDPM((2,), None, network=Own())
    assert [id(p) for p in model.parameter_groups()] == [id(p) for p in model.parameters()]


@pytest.mark.parametrize("precise", [False, True])
def test_it_goes_on_from_its_state(precise, monkeypatch):
    monkeypatch.setattr(muon, "fast_bfloat16", lambda device: not precise)
    weights, gradients = problem()
    optimizer = Muon([{"params": weights[:2], "matrices": True}, {"params": weights[2:]}])
    follow(optimizer, weights, gradients[:3])
    again, _ = problem()
    for restored, weight in zip(again, weights, strict=True):
        restored.data.copy_(weight)
    resumed = Muon([{"params": again[:2], "matrices": True}, {"params": again[2:]}], lr=99.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    follow(optimizer, weights, gradients[3:])
    follow(resumed, again, gradients[3:])
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))


def test_it_goes_on_from_the_state_of_earlier_versions():
    """Written by hand, as they left it: the same names, moments where the weights lay, the step as a number."""
    weights, gradients = problem()
    optimizer = Muon([{"params": weights[:2], "matrices": True}, {"params": weights[2:]}])
    names = {"momentum": 0.95, "weight_decay": 0.1, "betas": (0.9, 0.98), "eps": 1e-8}
    moments = [torch.full((6, 4), 0.1), torch.full((4, 9), -0.1), torch.full((5,), 0.2), torch.full((5,), 0.3)]
    optimizer.load_state_dict(
        {
            "state": {
                0: {"momentum": moments[0].clone()},
                1: {"momentum": moments[1].clone()},
                2: {"step": torch.tensor(4.0), "mean": moments[2].clone(), "square": moments[3].clone()},
            },
            "param_groups": [
                {"matrices": True, "lr": 0.02, "params": [0, 1], **names},
                {"matrices": False, "lr": 0.005, "params": [2], **names},
            ],
        }
    )
    before = weights[2].detach().clone()
    follow(optimizer, weights, gradients[:1])
    gradient = gradients[0][2]
    mean, square = 0.9 * moments[2] + 0.1 * gradient, 0.98 * moments[3] + 0.02 * gradient**2
    step = 0.005 * (mean / (1 - 0.9**5)) / ((square / (1 - 0.98**5)).sqrt() + 1e-8)
    torch.testing.assert_close(weights[2].detach(), before - step, atol=1e-6, rtol=0)
    kept = optimizer.state_dict()["state"]
    torch.testing.assert_close(kept[0]["momentum"], 0.95 * moments[0] + 0.05 * gradients[0][0])
    assert {name: set(state) for name, state in kept.items()} == {
        0: {"momentum"},
        1: {"momentum"},
        2: {"step", "mean", "square"},
    }


def test_bad_arguments():
    weights, _ = problem()
    with pytest.raises(ValueError, match=r"shapes \[\(5,\)\]"):
        Muon([{"params": weights, "matrices": True}])
    with pytest.raises(ValueError, match=r"momentum=1\.0"):
        Muon(weights, momentum=1.0)
    with pytest.raises(ValueError, match="no group marked"):
        Muon(weights)


def test_a_group_can_be_added_later():
    weights, gradients = problem()
    whole = Muon([{"params": weights[:2], "matrices": True}, {"params": weights[2:]}])
    parted = Muon([{"params": weights[:1], "matrices": True}])
    for group in ({"params": weights[1:2], "matrices": True}, {"params": weights[2:]}):
        parted.add_param_group(group)
    told = [{name: value for name, value in group.items() if name != "params"} for group in parted.param_groups]
    assert told[0] == told[1] and told[1:] == [
        {name: value for name, value in group.items() if name != "params"} for group in whole.param_groups
    ]
    follow(parted, weights, gradients)
    again = pickle.loads(pickle.dumps(parted))
    again.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3, 3))], "matrices": True, "momentum": 0.5})
    assert again.param_groups[-1]["betas"] == (0.5, 0.98) and again.param_groups[-1]["lr"] == 0.02
    with pytest.raises(ValueError, match=r"shapes \[\(5,\)\]"):
        parted.add_param_group({"params": [torch.nn.Parameter(torch.zeros(5))], "matrices": True})
    assert len(parted.param_groups) == 3


def test_a_schedule_moves_the_momentum_of_its_matrices():
    """As it is meant to (Smith & Topin): a step with a schedule's momentum is one of a Muon that was given it."""
    weights, gradients = problem()
    fixed, moved = copy.deepcopy(weights), weights
    groups = [[{"params": w[:2], "matrices": True}, {"params": w[2:]}] for w in (moved, fixed)]
    optimizer = Muon(groups[0])
    OneCycleLR(optimizer, [0.02, 0.005], 10, base_momentum=0.85, max_momentum=0.95)  # begins with the most
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        assert group["betas"][0] == 0.95
        group["betas"] = (0.85, 0.98)  # and comes to this
    follow(optimizer, moved, gradients)
    follow(Muon(groups[1], lr=rates[0], adam_lr=rates[1], momentum=0.85, betas=(0.85, 0.98)), fixed, gradients)
    assert all(torch.equal(a, b) for a, b in zip(moved, fixed, strict=True))


def test_a_group_keeps_a_learning_rate_of_its_own():
    weights, _ = problem()
    groups = [{"params": weights[:1], "matrices": True, "lr": 0.5}, {"params": weights[1:2], "matrices": True}]
    assert [group["lr"] for group in Muon([*groups, {"params": weights[2:]}]).param_groups] == [0.5, 0.02, 0.005]
    assert "lr" not in groups[1]
