"""No step, sampler or likelihood waits for the device: shown on one that nobody can wait for.

Tensors on torch's `meta` device have a shape and no values. Whatever asks for a value raises: `.item()`, `bool(t)`,
`.tolist()`, a copy to the CPU, a mask as an index. On a GPU each of these would stop the host until all that was
started there is done. The few places that may ask, once a call, are counted here.
"""

from collections import Counter
from inspect import signature
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import CASES, CODEBOOKS, CONDITIONAL, ONCE, Case
from thorough import some
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import genzoo.zoo.autoregressive.base
import genzoo.zoo.autoregressive.gpt
import genzoo.zoo.autoregressive.pixelcnn
import genzoo.zoo.autoregressive.wavenet
import genzoo.zoo.diffusion.marginal
from genzoo.zoo import GPT, LatentModel, PerDatum, PixelCNN
from genzoo.zoo.interface import HasLogProb, Samples, SamplesInSteps
from genzoo.zoo.mixins import ConditionalMixin
from genzoo.zoo.module import ZooModule

META = "meta"
EVERY = pytest.mark.parametrize("case", some(CASES + CONDITIONAL + CODEBOOKS, ONCE.__contains__), ids=str)


def claiming(capability):
    cases = [case for case in CASES + CONDITIONAL if capability in case.claimed]
    return pytest.mark.parametrize("case", some(cases, ONCE.__contains__), ids=str)


@pytest.fixture(autouse=True)
def looks(monkeypatch) -> Counter:
    """Counts the calls of what may ask: the check of what a public method is given, and two questions of a loop."""
    counts: Counter = Counter()

    def check(self, x, **options):
        counts["check"] += 1
        return x

    def known_to_all(known):
        counts["known"] += 1
        return torch.zeros(known.shape[1:], dtype=torch.bool).tolist()

    def present_classes(self):
        counts["classes"] += 1
        return list(range(self.num_classes))

    autocast = torch.autocast  # which there is none of on this device
    monkeypatch.setattr(
        torch, "autocast", lambda kind, **options: autocast("cpu" if kind == META else kind, **options)
    )
    for kind in (ZooModule, GPT):  # the latter has its own
        monkeypatch.setattr(kind, "check", check)

    def rows_above_zero(log_q):
        counts["classes"] += 1
        return [list(range(log_q.shape[1]))] * len(log_q)

    monkeypatch.setattr(ConditionalMixin, "present_classes", present_classes)
    monkeypatch.setattr(genzoo.zoo.diffusion.marginal, "rows_above_zero", rows_above_zero)
    for family in ("base", "gpt", "pixelcnn", "wavenet"):
        monkeypatch.setattr(getattr(genzoo.zoo.autoregressive, family), "known_to_all", known_to_all)
    return counts


class Copies(TorchDispatchMode):
    """Counts what is copied from here to the device, for which the host waits, too."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            self.count += out.device.type == META and args[-1].device.type != META
        return out


def seeded() -> torch.Generator:
    """On the CPU, as a user's seed is: it gives the same noise on every device."""
    return torch.Generator().manual_seed(0)


class Stage(SimpleNamespace):
    """What a module asks a Trainer that moves a batch; to Lightning it is no Trainer."""

    def __bool__(self) -> bool:
        return False


def on_its_way(model, x: Tensor, stage: str, device: str = META) -> tuple[Tensor, Tensor | None]:
    """A batch after the first of its stage, moved by a Trainer and unpacked."""
    batch = (x, torch.tensor([0, 1, 2, 0, 1]))
    model._trainer = Stage(training=stage == "train")
    x, y = model._on_before_batch_transfer(batch)
    model._trainer = None
    model._checked_stages.add(stage)
    return model.unpack((x.to(device), y.to(device)), stage)


@pytest.mark.parametrize(
    "ask",
    [
        lambda t: t.sum().item(),
        lambda t: bool(t.any()),
        lambda t: int(t.max()),
        lambda t: float(t.max()),
        lambda t: t.tolist(),
        lambda t: t.cpu(),
        lambda t: t.numpy(),
        lambda t: t[t > 0],
        lambda t: t.nonzero(),
        lambda t: t.unique(),
        lambda t: torch.equal(t, t + 1),
        lambda t: torch.masked_select(t, t > 0),
    ],
)
def test_whatever_asks_for_a_value_raises(ask) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        ask(torch.ones(3, device=META))


@pytest.mark.parametrize("copy", [lambda t: t.to(META), lambda t: torch.zeros(3, device=META).copy_(t)])
def test_copies_are_counted(copy) -> None:
    with Copies() as copies:
        copy(torch.ones(3)) + copy(torch.ones(3))
        torch.ones(3).to(torch.float64)
        torch.ones(3, device=META).to(torch.float64)
    assert copies.count == 2


@EVERY
def test_a_training_step_does_not_wait(case: Case, looks: Counter) -> None:
    model = case.build().to(META).train()
    x, labels = on_its_way(model, case.data(5), "train")
    model.objective(x, labels)  # tables of a schedule go to the device once
    with Copies() as copies:
        model.objective(x, labels)["loss"].mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not looks and not copies.count


@EVERY
def test_an_evaluation_does_not_wait(case: Case, looks: Counter) -> None:
    model = case.build().to(META).eval()
    x, labels = on_its_way(model, case.data(5), "val")
    with torch.no_grad():
        found = model.evaluation(x, labels, model._streams_of(x))
    assert all(value.shape == (5,) for value in found.values())
    assert all(count <= 3 for count in looks.values())  # of log_prob, with the labels and without


def few_steps(case: Case, *, within: bool = False) -> Any:
    """The model of a case, which takes two steps where it takes many: another is the same once more.

    It is on the device: moved there by itself, or `within` another module.
    """
    model = case.build()
    for part in model.modules():
        for name, few in (("steps", 2), ("flow_steps", 1)):
            if isinstance(getattr(part, name, None), int):
                setattr(part, name, few)
        if isinstance(part, PixelCNN):
            part.layers = part.layers[:1]
    (nn.ModuleDict({"part": model}) if within else model).to(META)
    return model.eval()


@claiming(Samples)
def test_a_sampler_does_not_wait(case: Case, looks: Counter) -> None:
    model = few_steps(case)
    with Copies() as copies:
        assert model.sample(4).shape == (4, *case.shape)
    assert copies.count <= 1  # of a prompt
    assert model.sample(4, generator=seeded()).shape == (4, *case.shape)
    assert looks["known"] <= 2 and set(looks) <= {"known"}


@pytest.mark.parametrize(
    "case", [c for c in CONDITIONAL if "guidance" in signature(c.build().sample).parameters], ids=str
)
def test_a_guided_sampler_does_not_wait(case: Case, looks: Counter) -> None:
    model = few_steps(case)
    with Copies() as copies:
        assert model.sample(4, guidance=2.0).shape == (4, *case.shape)
    assert not looks and not copies.count


@claiming(SamplesInSteps)
def test_a_sampling_path_does_not_wait(case: Case, looks: Counter) -> None:
    model = few_steps(case)
    assert model.sample_path(4, num_frames=3, generator=seeded()).shape == (3, 4, *case.shape)
    assert looks["known"] <= 1 and set(looks) <= {"known"}


@claiming(HasLogProb)
def test_a_likelihood_does_not_wait(case: Case, looks: Counter) -> None:
    model, x = few_steps(case), case.data(5)
    for num_particles in (1, 2):
        looks.clear()
        found = model.log_prob(x.to(META), num_particles=num_particles, generator=PerDatum(x))
        assert found.shape == (5,)
        parts = num_particles if case.family is LatentModel else 0  # codes are looked at by the prior, too
        assert 1 <= looks["check"] <= 1 + parts and not looks["known"]
        assert looks["classes"] <= 3  # which there are, twice, and which are likely


@pytest.mark.parametrize("case", CONDITIONAL, ids=str)
def test_labels_that_nobody_looked_at_are_looked_at(case: Case) -> None:
    """In a step after a batch with odd labels, and in one whose labels were on the device all along."""
    model = case.build()
    x = case.data(5)
    on_its_way(model, x, "train")  # sound ones, of another batch
    for y in (torch.tensor([0, 1, 2, 0, 3]), torch.tensor([0, 1, 2, 0, -1])):
        model._trainer = Stage(training=True)
        moved = model._on_before_batch_transfer((x, y))
        model._trainer = None
        with pytest.raises(ValueError, match=r"labels lie in \[0, 3\)"):
            model.objective(*model.unpack(moved, "train"))
        with pytest.raises(ValueError, match=r"labels lie in \[0, 3\)"):
            model.objective(x, y)
    model._on_before_batch_transfer((x.to(META), torch.zeros(5, dtype=torch.long, device=META)))
    with pytest.raises(ValueError, match=r"labels lie in \[0, 3\)"):
        model.objective(*model.unpack((x, y), "train"))


@pytest.mark.parametrize("case", CONDITIONAL, ids=str)
def test_labels_may_be_elsewhere_than_the_model(case: Case) -> None:
    """A user's labels as a rule are on the CPU."""
    model, labels = case.build().to(META).train(), torch.tensor([0, 1, 2, 0, 1])
    assert model.checked_labels(labels, 5).device.type == META
    assert model.objective(case.data(5).to(META), labels)["loss"].device.type == META


@EVERY
def test_the_noise_of_an_evaluation_is_the_datums_own(case: Case) -> None:
    """Made before the batch is moved, it is what is made of the batch that arrives; in half precision, too."""
    model, x = case.build(), case.data(5)
    for given in [x] if not x.is_floating_point() else [x, x.bfloat16(), x.double()]:
        model._trainer = Stage(training=False)
        arrived, _ = model.unpack(model._on_before_batch_transfer((given,)), "val")
        model._trainer = None
        ours, theirs = model._streams_of(arrived), PerDatum(arrived)
        for a, b in zip(ours.streams, theirs.streams, strict=True):
            assert torch.equal(a.get_state(), b.get_state())
        assert model._streams is None  # used once


@claiming(Samples)
def test_a_model_that_was_moved_as_a_part_of_another_module_draws_where_it_is(case):
    """Of such a move Lightning's `device` knows nothing."""
    model = few_steps(case, within=True)
    assert model.device.type == "cpu"
    assert model.sample(2, generator=seeded()).device.type == META
