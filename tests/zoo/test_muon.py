"""Muon against the singular value decomposition, and against PyTorch's own optimisers."""

import copy

import pytest
import torch

from genzoo.zoo import DDPM
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


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (48, 16)])
def test_singular_values_come_near_one_and_singular_vectors_stay(size):
    torch.manual_seed(0)
    matrix = torch.randn(size)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    along = u.T @ orthogonalised(matrix).float() @ v.T
    values = along.diagonal()
    assert 0.65 < values.min() < values.max() < 1.25
    assert (along - values.diag()).abs().max() < 0.05
    torch.testing.assert_close(orthogonalised(1000 * matrix), orthogonalised(matrix), atol=0.05, rtol=0)
    assert torch.equal(orthogonalised(torch.zeros(size)), torch.zeros(size, dtype=torch.bfloat16))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_matrices_take_the_steps_of_pytorch_s_muon_and_the_rest_those_of_its_adamw():
    ours, gradients = problem()
    groups = [{"params": ours[:2], "matrices": True}, {"params": ours[2:]}]
    follow(Muon(groups, lr=0.03, adam_lr=0.01, momentum=0.9, weight_decay=0.2), ours, gradients)
    theirs, _ = problem()
    muon = torch.optim.Muon(theirs[:2], lr=0.03, momentum=0.9, weight_decay=0.2)
    adam = torch.optim.AdamW(theirs[2:], lr=0.01, betas=(0.9, 0.98), weight_decay=0.0)
    follow(muon, theirs[:2], [step[:2] for step in gradients])
    follow(adam, theirs[2:], [step[2:] for step in gradients])
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-6, rtol=1e-5)


def test_a_kernel_takes_the_step_of_its_matrix():
    """(out, in, height, width) as (out, in · height · width), however it lies in memory."""
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    matrix = torch.nn.Parameter(kernel.detach().flatten(1).clone())
    gradients = [torch.randn(8, 4, 3, 3) for _ in range(3)]
    follow(Muon([{"params": [kernel], "matrices": True}]), [kernel], [[g] for g in gradients])
    follow(Muon([{"params": [matrix], "matrices": True}]), [matrix], [[g.flatten(1)] for g in gradients])
    torch.testing.assert_close(kernel.flatten(1), matrix, atol=1e-6, rtol=0)
    assert kernel.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2,)])
def test_networks_that_denoise_keep_their_hidden_matrices_apart(shape):
    model = DDPM(shape, 17 if len(shape) == 3 else None, width=16, attention=True, num_classes=3, conditional=True)
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


def test_it_goes_on_from_its_state():
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


def test_bad_arguments():
    weights, _ = problem()
    with pytest.raises(ValueError, match=r"shapes \[\(5,\)\]"):
        Muon([{"params": weights, "matrices": True}])
    with pytest.raises(ValueError, match=r"momentum=1\.0"):
        Muon(weights, momentum=1.0)
    with pytest.raises(ValueError, match="no group marked"):
        Muon(weights)


def test_a_group_keeps_a_learning_rate_of_its_own():
    weights, _ = problem()
    groups = [{"params": weights[:1], "matrices": True, "lr": 0.5}, {"params": weights[1:2], "matrices": True}]
    assert [group["lr"] for group in Muon([*groups, {"params": weights[2:]}]).param_groups] == [0.5, 0.02, 0.005]
    assert "lr" not in groups[1]
