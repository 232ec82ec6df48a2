"""The fused kernel against PyTorch's plain loop, on a Trainer's terms: clipping, scaling, checkpoints."""

import copy
import inspect
import os
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader

from genzoo.zoo import GPT, VAE, MaskedDiffusion, Muon
from genzoo.zoo.optimizers import fused, state_again

SETTINGS = {"weight_decay", "betas", "eps", "momentum", "nesterov"}


def problem() -> tuple[list[torch.nn.Parameter], list[list[torch.Tensor]]]:
    """A kernel that lies in memory channel by channel, a matrix, a vector, and gradients of theirs."""
    torch.manual_seed(0)
    weights = [
        torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last),
        torch.randn(4, 9),
        torch.randn(5),
    ]
    gradients = [[torch.randn(w.shape) for w in weights] for _ in range(7)]
    return [torch.nn.Parameter(w) for w in weights], gradients


def follow(optimizer: Any, gradients: list[list[torch.Tensor]]) -> None:
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()


def flags(optimizer: Any) -> set[Any]:
    return {group.get("fused") for group in optimizer.param_groups}


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_same_steps_wherever_gradients_lie_in_memory(kind: type, memory_format: Any) -> None:
    ours, gradients = problem()
    for step in gradients:
        step[0] = step[0].contiguous(memory_format=memory_format)
    theirs, _ = problem()
    optimizer = fused(kind(ours, lr=0.01, weight_decay=0.1))
    assert flags(optimizer) == {True}
    follow(optimizer, gradients)
    follow(kind(theirs, lr=0.01, weight_decay=0.1, fused=False, foreach=False), gradients)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize("stated", [{"fused": False}, {"foreach": True}, {"differentiable": True}])
def test_what_is_stated_stays(stated: dict[str, bool]) -> None:
    optimizer = fused(AdamW(problem()[0], **stated))
    assert not flags(optimizer) & {True} and not optimizer.defaults["fused"]
    assert all(optimizer.param_groups[0][name] == value for name, value in stated.items())


def test_a_group_that_comes_later_is_fused_too() -> None:
    weights, _ = problem()
    optimizer = fused(AdamW(weights[:1]))
    optimizer.add_param_group({"params": weights[1:]})
    assert flags(optimizer) == {True}


@pytest.mark.parametrize("there", [False, True])
def test_a_driver_that_is_not_there_is_looked_for_once(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as Lightning sets it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: 0 if there else -1)  # there, but of no use
    fused(AdamW(problem()[0]))
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == ("1" if there else "0")


def test_what_has_no_fused_kernel_steps_as_before() -> None:
    assert flags(fused(SGD(problem()[0], lr=0.1))) == {None}
    complex_ones = [torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))]
    assert flags(fused(AdamW(complex_ones))) == {None}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, None])
def test_a_checkpoint_goes_on_as_the_present_run_says(before: bool, after: bool | None) -> None:
    """Also one whose moments lie in memory otherwise than the weights do by now."""
    (weights, gradients), (again, _), (straight, _) = problem(), problem(), problem()
    first = fused(AdamW(weights, lr=0.01, fused=before))
    follow(first, gradients[:3])
    kept = copy.deepcopy(first.state_dict())
    for state in kept["state"].values():
        state["exp_avg"], state["exp_avg_sq"] = state["exp_avg"].contiguous(), state["exp_avg_sq"].contiguous()
    for restored, weight in zip(again, weights, strict=True):
        restored.data.copy_(weight)
    second = fused(AdamW(again, lr=99.0, fused=after))
    second.load_state_dict(kept)
    assert flags(second) == {after is None}
    follow(second, gradients[3:])
    follow(AdamW(straight, lr=0.01, fused=False, foreach=False), gradients)
    for resumed, reference in zip(again, straight, strict=True):
        torch.testing.assert_close(resumed, reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (partial(AdamW, lr=0.01), partial(AdamW, lr=9.0, weight_decay=0.5, betas=(0.5, 0.6), eps=1e-3)),
        (partial(AdamW, lr=0.01, weight_decay=0.5), partial(Adam, lr=9.0)),
        (partial(SGD, lr=0.01, momentum=0.9), partial(SGD, lr=9.0, momentum=0.5, nesterov=True)),
    ],
)
def test_what_a_run_states_counts_beside_the_rate_and_the_moments(first: Any, second: Any) -> None:
    """It goes on as one whose optimiser was changed by hand."""
    (weights, gradients), (again, _) = problem(), problem()
    before = fused(first(weights))
    follow(before, gradients[:3])
    for restored, weight in zip(again, weights, strict=True):
        restored.data.copy_(weight)
    resumed = fused(second(again))
    resumed.load_state_dict(copy.deepcopy(before.state_dict()))
    assert resumed.param_groups[0]["weight_decay"] == before.param_groups[0]["weight_decay"]  # as it was saved
    state_again(resumed, arguments=True, rates=False)
    stated = second([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    told = {name: value for name, value in stated.items() if name not in {"params", "lr", "fused", "foreach"}}
    assert {name: resumed.param_groups[0][name] for name in (*told, "lr")} == told | {"lr": 0.01}
    by_hand = type(resumed)(weights, **{name: value for name, value in told.items() if name in SETTINGS}, lr=0.01)
    by_hand.state = before.state
    follow(by_hand, gradients[3:])
    follow(resumed, gradients[3:])
    for ours, theirs in zip(again, weights, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("first", "second"), list(permutations([AdamW, partial(SGD, lr=0.1), Muon], 2)))
def test_a_checkpoint_of_another_optimiser_is_refused(first: Any, second: Any) -> None:
    weights, gradients = problem()
    groups = [[{"params": weights[:2], **matrices}, {"params": weights[2:]}] for matrices in ({}, {"matrices": True})]
    one, two = (fused(build([dict(group) for group in groups[build is Muon]])) for build in (first, second))
    follow(one, gradients[:1])
    with pytest.raises(ValueError, match=f"another optimiser than {type(two).__name__}, one that has"):
        two.load_state_dict(one.state_dict())


def test_a_checkpoint_of_other_groups_is_refused_as_ever() -> None:
    weights, _ = problem()
    one, two = fused(AdamW(weights)), fused(AdamW([{"params": weights[:1]}, {"params": weights[1:]}]))
    with pytest.raises(ValueError, match="different number of parameter groups"):
        one.load_state_dict(two.state_dict())


@pytest.mark.parametrize("family", [family for family, *_ in FAMILIES], ids=lambda family: family.__name__)
def test_every_family_steps_fused_by_itself_and_as_a_recipe_says(family: Any) -> None:
    ((shape, levels), *_) = next(data for one, data, _ in FAMILIES if one is family)
    names = [name for name in inspect.signature(family).parameters if name.endswith("optimizer")]
    for given in ({}, dict.fromkeys(names, partial(AdamW, lr=1e-3))):
        made = family(shape, levels, **given).configure_optimizers()
        optimizers = made[0] if isinstance(made, tuple) else [made]
        assert all(flags(one) == {True} for one in optimizers if isinstance(one, Adam | AdamW))
        assert family in (GPT, MaskedDiffusion) or all(isinstance(one, Adam | AdamW) for one in optimizers)


# ---- under a Trainer


class Norms(Callback):
    """Of the gradient, as an optimiser takes it."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if gradients:
            self.seen.append(float(torch.nn.utils.get_total_norm(gradients)))


def trained(folder: Path, optimizer: Any, clip: float | None, **options: Any) -> tuple[torch.Tensor, list[float]]:
    torch.manual_seed(0)
    model = VAE((1, 8, 8), 17, network="mlp", width=8, depth=1, latent_dim=2, optimizer=optimizer)
    x = torch.randint(17, (64, 1, 8, 8), generator=torch.Generator().manual_seed(1)) / 16
    norms = Norms()
    Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[norms],
        gradient_clip_val=clip,
        **options,
    ).fit(model, DataLoader(x, batch_size=16))
    return torch.cat([p.detach().flatten() for p in model.parameters()]), norms.seen


SCALED = {"growth_interval": 1000, "init_scale": 2.0**10}


@pytest.mark.parametrize("stated", [{}, {"fused": True}])
@pytest.mark.parametrize("kind", ["bf16-mixed", "16-mixed", "accumulated"])
def test_gradients_are_clipped_before_a_fused_step(tmp_path: Path, stated: dict[str, bool], kind: str) -> None:
    """Lightning takes a fused optimiser for one that unscales gradients itself, and would refuse to clip them."""
    options: dict[str, Any] = {"precision": "bf16-mixed"}
    if kind == "16-mixed":  # float16 with a scale, of which a Trainer on a CPU would make bfloat16
        options = {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", **SCALED))}
    if kind == "accumulated":
        options |= {"accumulate_grad_batches": 2}
    optimizer = partial(AdamW, lr=1e-3, eps=0.1)  # large enough that the size of a gradient tells
    plain, unclipped = trained(tmp_path, partial(optimizer, fused=False), 0.5, **options)
    ours, clipped = trained(tmp_path, partial(optimizer, **stated), 0.5, **options)
    free, loud = trained(tmp_path, optimizer, None, **options)
    assert max(clipped) == pytest.approx(0.5, rel=1e-3) and min(loud) > 2
    assert clipped == pytest.approx(unclipped, rel=1e-3)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)
    assert float((ours - free).abs().max()) > 1e-4
