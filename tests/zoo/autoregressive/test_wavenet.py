"""WaveNet against what defines it: causal to the bit, sums to one, and queues that give what the network gives."""

import itertools
import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from genzoo.zoo import WaveNet
from genzoo.zoo.autoregressive.base import AutoregressiveMixin
from genzoo.zoo.autoregressive.wavenet import Queues
from genzoo.zoo.modality import from_codes


def wavenet(length: int = 20, levels: int = 256, scale: float = 4.0, **options: Any) -> WaveNet:
    """A small one that looks back 8 samples, with weights large enough to say something."""
    torch.manual_seed(0)
    options = {"channels": 8, "skip_channels": 8, "dilations": (1, 2, 4), **options}
    model = WaveNet((1, length), levels, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_sound(length: int, levels: int) -> Tensor:
    """(levels ** length, 1, length), all there are."""
    codes = torch.tensor(list(itertools.product(range(levels), repeat=length))).unsqueeze(1)
    return from_codes(codes, levels, "waveform")


@pytest.mark.parametrize("cycles", [1, 2])
def test_the_jacobian_is_zero_from_the_sample_on_and_alive_before_it(cycles: int) -> None:
    model = wavenet(length := 20, scale=1, cycles=cycles)
    view = 7 * cycles + 1  # samples that are seen
    seen = []
    model.inlet.register_forward_hook(lambda *args: seen.append(args[-1]))
    logits = model.logits(torch.randint(256, (1, 1, length), generator=seeded()), None)
    (read,) = seen  # at s stands what is known of the code s − 1
    for i in range(length):
        (gradient,) = torch.autograd.grad(logits[..., i].square().sum(), read, retain_graph=True)
        alive = gradient[0].abs().sum(-1) > 0
        expected = [i - view < s <= i for s in range(length)]
        assert alive.tolist() == expected, i


def test_a_later_sample_changes_nothing_before_it_and_all_that_sees_it() -> None:
    model = wavenet(20, num_classes=3, conditional=True)
    codes, labels = torch.randint(256, (2, 1, 20), generator=seeded()), torch.tensor([0, 2])
    logits = model.logits(codes, labels)
    for j in range(20):
        other = codes.clone()
        other[..., j] = (other[..., j] + 100) % 256
        changed = (model.logits(other, labels) != logits).flatten(2).any(1)
        assert changed.tolist() == [[j < i <= j + 8 for i in range(20)]] * 2, j
    assert ((model.logits(codes, labels.flip(0)) != logits).any(1)).all()  # every sample heeds the class


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_probabilities_of_all_sounds_sum_to_one(scale: float) -> None:
    x = every_sound(4, 4)
    model = wavenet(4, 4, scale)
    assert model.log_prob(x).double().exp().sum().item() == pytest.approx(1, abs=1e-5)
    model = wavenet(4, 4, scale, num_classes=3, conditional=True)
    given = torch.stack([model.log_prob(x, labels=torch.full((256,), y)) for y in range(3)])
    torch.testing.assert_close(given.double().exp().sum(1), torch.ones(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.log_prob(x), given.logsumexp(0) - math.log(3))
    assert not torch.allclose(given[0], given[1])


# ---- sounds that are shorter than T


def ended(x: Tensor, length: int) -> Tensor:
    """The beginning of a sound, filled up with zeros."""
    return x.masked_fill(torch.arange(x.shape[-1]) >= length, 0)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_likelihood_of_a_sound_that_ends_is_that_of_all_sounds_that_begin_so(length: int) -> None:
    """Σ p(x) over everything that could come after, enumerated; over all sounds of this length it sums to one."""
    model, x = wavenet(4, 4, num_classes=3, conditional=True), every_sound(4, 4)
    begin = model.codes(x)[:, 0, :length] @ 4 ** torch.arange(length)
    joint = torch.zeros(4**length).double().index_add(0, begin, model.log_prob(x).double().exp())
    likelihood = model.log_prob(ended(x, length)).double().exp()
    torch.testing.assert_close(likelihood, joint[begin], rtol=1e-5, atol=1e-9)
    assert likelihood.sum().item() / 4 ** (4 - length) == pytest.approx(1, abs=1e-5)


def test_what_fills_up_a_sound_has_no_part_in_training_likelihood_and_score() -> None:
    """All are those of a model with the same weights for sounds of just this length, gradients included."""
    model, short = wavenet(20), wavenet(13)
    x = ended(model.sample(3, generator=seeded()), 13)
    for ours, theirs in ((model, x), (short, x[..., :13])):
        ours.objective(theirs, None)["loss"].mean().backward()
    assert model.num_observed(x).tolist() == [13, 13, 13]
    for mine, its in zip(model.parameters(), short.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-5)
    for method in ("log_prob", "bits_per_dim", "anomaly_score"):
        torch.testing.assert_close(getattr(model, method)(x), getattr(short, method)(x[..., :13]))
    whole = model.sample(64, generator=seeded())
    assert bool((whole != 0).all())  # what is drawn has no end, though it may end in silence
    assert model.num_observed(whole).tolist() == [20] * 64


def test_the_bits_of_a_dataset_are_all_its_bits_over_all_its_samples(tmp_path: Any) -> None:
    model = wavenet(20)
    x = torch.cat([ended(model.sample(1, generator=seeded(n)), n) for n in range(1, 12)])
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    for batch_size in (3, 11):
        run = Trainer(default_root_dir=tmp_path, **quiet)
        (logged,) = run.validate(model, DataLoader(x, batch_size=batch_size), verbose=False)
        nats = -model.log_prob(x).double()
        assert logged["val/nll"] == pytest.approx(nats.mean().item(), rel=1e-6)
        assert logged["val/bits_per_dim"] == pytest.approx(nats.sum().item() / 66 / math.log(2), rel=1e-6)
    torch.testing.assert_close(model.bits_per_dim(x).double(), nats / torch.arange(1, 12) / math.log(2))


def test_log_prob_is_that_of_the_categorical_of_each_code() -> None:
    model = wavenet(20)
    x = from_codes(torch.randint(256, (3, 1, 20), generator=seeded()), 256, "waveform")
    torch.testing.assert_close(model.log_prob_per_dim(x, None), AutoregressiveMixin.log_prob_per_dim(model, x, None))


@pytest.mark.parametrize("conditional", [False, True])
@torch.no_grad()
def test_the_queues_give_the_logits_of_the_whole_network(conditional: bool) -> None:
    model = wavenet(40, scale=2, num_classes=3, conditional=conditional, cycles=2, dilations=(1, 2, 4, 8))
    codes = torch.randint(256, (3, 1, 40), generator=seeded())
    labels = torch.tensor([2, 0, 1]) if conditional else None
    whole = model.logits(codes, labels)
    queues = Queues(model, 3, labels)
    fed = F.pad(codes[:, 0, :-1], (1, 0), value=model.start)
    for t in range(40):  # the view of 31 samples goes round each queue more than once
        torch.testing.assert_close(model.output(queues.step(fed[:, t])), whole[:, :, 0, t], rtol=0, atol=1e-5)
    assert whole.std() > 0.1


@pytest.mark.parametrize("conditional", [False, True])
@torch.no_grad()
def test_what_is_drawn_is_what_the_whole_network_would_draw(conditional: bool) -> None:
    model = wavenet(24, scale=2, num_classes=3, conditional=conditional)
    codes = torch.randint(256, (4, 1, 24), generator=seeded())
    labels = torch.tensor([2, 0, 1, 1]) if conditional else None
    noise = torch.rand(codes.shape, generator=seeded(1))
    nothing, half = torch.zeros_like(codes, dtype=torch.bool), torch.arange(24).expand_as(codes) < 12
    some = torch.rand(codes.shape, generator=seeded(2)) < 0.5  # another mask for each sound
    for known in (nothing, half, some):
        drawn = model.draw(codes, known, labels, noise)
        assert torch.equal(drawn, model.draw_uncached(codes, known, labels, noise))
        assert torch.equal(drawn[known], codes[known])


@pytest.mark.parametrize("second", [0, 1])  # which is 0 as a sample, too: known silence is no end
def test_completions_follow_the_conditional(second: int) -> None:
    """The second half given the first, over class and all: against the enumerated p(x₃, x₄ | x₁, x₂)."""
    model = wavenet(4, 3, 3.0, num_classes=2, conditional=True)
    known = torch.tensor([True, True, False, False])
    x = from_codes(torch.tensor([[[2, second, 0, 0]]]), 3, "waveform")
    everything = every_sound(4, 3)
    fits = (everything[:, 0, :2] == x[0, 0, :2]).all(1)
    expected = model.log_prob(everything[fits]).double().softmax(0)
    drawn = model.codes(model.complete(x, known, num_samples=4000, generator=seeded()))[:, 0, 0]
    assert torch.equal(drawn[:, :2], torch.tensor([[2, second]]).expand(4000, 2))
    found = (drawn[:, 2] * 3 + drawn[:, 3]).bincount(minlength=9) / 4000
    assert model.completion_kind(known) == "exact"
    assert (found - expected).abs().sum() / 2 < 0.03  # about four standard errors


def test_it_learns_a_wave() -> None:
    """Eight phases of one period: once heard, nothing is left to tell but the phase, log 8 nats."""
    torch.manual_seed(0)
    period = torch.tensor([0, 100, 180, 220, 255, 220, 180, 30])
    codes = torch.stack([period.roll(k).repeat(4) for k in range(8)]).unsqueeze(1)
    x = from_codes(codes, 256, "waveform")
    model = WaveNet((1, 32), 256, channels=16, skip_channels=32, dilations=(1, 2, 4, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = model.objective(x, None)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert math.log(8) - 1e-3 < loss.item() < math.log(8) + 0.3
    heard = model.complete(x, torch.arange(32) < 8, generator=seeded())[0]
    assert (model.codes(heard) == codes).float().mean() > 0.95


def test_a_sample_runs_the_network_once_for_each_dimension() -> None:
    assert wavenet(20).network_evaluations == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (16,), "levels": 256}, "tokens"),
        ({"shape": (1, 8, 8), "levels": 256}, "image"),
        ({"shape": (1, 16), "levels": None}, "levels=None"),
        ({"shape": (1, 16), "levels": 256, "dilations": []}, "dilations"),
        ({"shape": (1, 16), "levels": 256, "dilations": [1, 0]}, "dilations"),
        ({"shape": (1, 16), "levels": 256, "channels": 0}, "channels=0"),
        ({"shape": (1, 16), "levels": 256, "conditional": True}, "num_classes=None"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WaveNet(**arguments)
