"""Muon against the singular value decomposition, and against PyTorch's own optimisers."""

import copy

import pytest
import torch

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
