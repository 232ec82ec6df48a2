"""Memorisation: against brute force, and where its value is known."""

from math import sqrt

import pytest
import torch
from torch import Tensor

from genzoo.datamodules import DigitsDataModule
from genzoo.metrics import evaluate, memorisation
from genzoo.metrics.copying import nearest, nearest_data
from genzoo.zoo import MADE


def normal(n: int, d: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_brute_force_count_agrees() -> None:
    training, unseen, samples = normal(30, 3, 0), normal(20, 3, 1), normal(25, 3, 2, 0.8)

    def distance(x: Tensor) -> float:
        return min(sum((a - b) ** 2 for a, b in zip(x.tolist(), t.tolist(), strict=True)) for t in training)

    pairs = [(distance(s), distance(u)) for s in samples for u in unseen]
    found = memorisation(training, unseen, samples)
    assert found.value == pytest.approx(sum(s < u for s, u in pairs) / len(pairs), abs=1e-12)


def test_the_nearest_of_more_rows_than_a_chunk() -> None:
    among = normal(300, 4, 3)
    rows = torch.arange(1500) % 300
    distance, row = nearest(among[rows] + normal(1500, 4, 4, 1e-3), among)
    assert torch.equal(row, rows) and 0 < distance.max() < 0.01


def test_the_nearest_datum_of_all_batches() -> None:
    """The same as of all at once, and what a batch holds is handed over as it is."""
    x, data = normal(7, 12, 11).view(7, 3, 2, 2), normal(40, 12, 12).view(40, 3, 2, 2)
    found = nearest_data(x, data.split(9))
    assert torch.equal(found, data[nearest(x.flatten(1), data.flatten(1))[1]])
    with pytest.raises(ValueError, match="no batch"):
        nearest_data(x, [])


def test_new_draws_of_the_distribution_are_no_copies() -> None:
    """½, within four of its own standard deviations; and these are right: 40 draws scatter as they say."""
    training = normal(200, 5, 5)
    draws = [memorisation(training, normal(150, 5, 100 + i), normal(150, 5, 500 + i)) for i in range(40)]
    values = torch.tensor([draw.value for draw in draws])
    error = sum(draw.error for draw in draws) / 40
    assert abs(values.mean() - 0.5) < 4 * error / sqrt(40)
    assert values.std().item() == pytest.approx(error, rel=4 / sqrt(2 * 39))


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1.0), (50.0, 0.0)])
def test_copies_and_what_lies_far_away(scale: float, expected: float) -> None:
    training = normal(200, 5, 6)
    samples = training[:80] if scale == 0 else normal(80, 5, 7, scale)
    assert memorisation(training, normal(90, 5, 8), samples).value == expected


@pytest.mark.parametrize("sets", [(0, 3, 3), (3, 0, 3), (3, 3, 0)])
def test_of_nothing_there_is_none(sets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="At least 1 features are needed"):
        memorisation(*(torch.ones(n, 2) for n in sets))


class Copier(MADE):
    """Draws the training data themselves."""

    def sample(self, num_samples: int, **_: object) -> Tensor:
        data = DigitsDataModule()
        data.setup("fit")
        x = torch.cat([x for x, _ in data.train_dataloader()])
        return x[torch.randint(len(x), (num_samples,))]


def test_a_model_that_copies_is_found_out() -> None:
    given = {"extractor": torch.nn.Flatten(), "num_samples": 2000, "only": ["closeness"], "progress": False}
    data = DigitsDataModule()
    figures = {f["name"]: f for f in evaluate(Copier((1, 8, 8), 17), data, **given)["figures"]}
    assert figures["memorisation"]["value"] > 0.98
    figures = {f["name"] for f in evaluate(Copier((1, 8, 8), 17), data, split="train", **given)["figures"]}
    assert "frechet" in figures and "memorisation" not in figures  # there, the reference are the training data


def test_the_share_of_a_model_that_copies_is_what_the_protocol_says() -> None:
    """Where some of the training data stand for all, it is found out as often as these are among them."""
    torch.manual_seed(0)
    training, unseen = torch.randn(6000, 8), torch.randn(1000, 8)
    value, _ = memorisation(training[::6], unseen, training)
    assert value == pytest.approx(0.5 + 0.5 * 1000 / 6000, abs=0.02)
    assert memorisation(training, unseen, training)[0] == 1


def test_a_copy_is_at_no_distance() -> None:
    x = torch.randint(256, (500, 64), generator=torch.Generator().manual_seed(0)) / 255
    distances, rows = nearest(x[:100], x)
    assert not distances.any() and torch.equal(rows, torch.arange(100))
