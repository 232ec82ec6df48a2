"""Every family on a GPU: the same numbers as on the CPU, and no step or sampler that stops to wait for the device.

`pytest -m gpu` where there is one; `tests/test_no_waiting.py` shows the second anywhere, of what it can reach there.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from families import Case, Noise
from lightning.pytorch import Trainer
from test_no_waiting import EVERY, claiming, on_its_way, seeded
from torch import Tensor

from genzoo.zoo import PerDatum
from genzoo.zoo.interface import Completes, HasLogProb, Samples
from genzoo.zoo.mixins import is_conditional

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def in_float32() -> Iterator[None]:
    """Not in TF32, which convolutions are in by default and which has ten bits."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def on_both(case: Case, ask: Callable[[Any, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """What a model says on the CPU and on the GPU."""
    model, x = case.build().eval(), case.data(6)
    with torch.no_grad():
        here = ask(model, x)
        there = ask(model.cuda(), x.cuda())
    return here.double(), there.cpu().double()


def waits(call: Callable[[], Any]) -> list[str]:
    """The lines at which the host waited for the device."""
    call()  # what is made once: plans of convolutions, cached tables
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # once in a process PyTorch says, too, that this mode does not detect all synchronizing operations
    return [f"{w.filename}:{w.lineno}" for w in found if "called a synchronizing" in str(w.message)]


@EVERY
def test_the_objective_is_that_of_the_cpu(case: Case) -> None:
    def evaluation(model: Any, x: Tensor) -> Tensor:
        labels = torch.tensor([0, 1, 2, 0, 1, 2], device=x.device)
        found = model.evaluation(x, labels if is_conditional(model) else None, PerDatum(x))
        return torch.stack(list(found.values()))

    here, there = on_both(case, evaluation)
    torch.testing.assert_close(there, here, rtol=2e-4, atol=2e-4)


@claiming(HasLogProb)
def test_the_likelihood_is_that_of_the_cpu(case: Case) -> None:
    def log_prob(model: Any, x: Tensor) -> Tensor:
        found: Tensor = model.log_prob(x, num_particles=2, generator=PerDatum(x))
        return found

    here, there = on_both(case, log_prob)
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-3)


@claiming(Samples)
def test_a_seed_gives_the_same_sample(case: Case) -> None:
    def sample(model: Any, x: Tensor) -> Tensor:
        found: Tensor = model.sample(6, generator=seeded())
        return found

    here, there = on_both(case, sample)
    # a number that falls on the edge of a level may fall to its other side, and changes what is drawn after it
    assert ((there - here).abs() < 1e-2).float().mean() > 0.95


@claiming(Completes)
def test_a_completion_keeps_what_is_known(case: Case) -> None:
    model, x = case.build().eval().cuda(), case.data(4).cuda()
    mask = torch.zeros(case.shape, dtype=torch.bool, device="cuda")
    mask.view(-1)[: mask.numel() // 2] = True
    (found,) = model.complete(x, mask, generator=seeded())
    assert found.is_cuda and found.shape == x.shape
    assert torch.equal(found[:, mask], x[:, mask])


@EVERY
def test_a_step_does_not_wait(case: Case) -> None:
    model = case.build().cuda().train()
    x, labels = on_its_way(model, case.data(5), "train", "cuda")

    def step() -> None:
        model.objective(x, labels)["loss"].mean().backward()

    assert not waits(step)


@claiming(Samples)
def test_a_sampler_does_not_wait(case: Case) -> None:
    model = case.build().cuda().eval()
    device = torch.Generator("cuda").manual_seed(0)
    with torch.no_grad():
        found = waits(lambda: model.sample(4, generator=device))
    assert len(found) <= 1, found  # of a prompt


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@EVERY
def test_a_trainer_trains_it(case: Case, precision: Any, tmp_path: Any) -> None:
    model = case.build()
    data = Noise(case.shape, case.levels)
    before = [p.detach().clone() for p in model.parameters()]
    trainer = Trainer(
        accelerator="gpu",
        devices=1,
        precision=precision,
        max_steps=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, data)
    after = [p.detach().cpu() for p in model.parameters()]
    assert all(p.isfinite().all() for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
