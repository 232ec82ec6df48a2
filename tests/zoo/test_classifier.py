"""A classifier's loss, accuracy and shifted training images, by hand."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from genzoo.zoo import Classifier
from genzoo.zoo.classifier import _shift


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return Classifier((1, 8, 9), 17, 3, width=4, feature_dim=5).eval()


def images(num: int) -> torch.Tensor:
    return torch.randint(17, (num, 1, 8, 9), generator=torch.Generator().manual_seed(1)) / 16


def test_loss_and_accuracy_are_of_the_true_class(model: Classifier) -> None:
    x = images(40)
    guesses = model(x).argmax(1)
    labels = torch.where(torch.arange(40) < 30, guesses, (guesses + 1) % 3)
    likeliest = model(x).detach().double().softmax(1)[torch.arange(40), labels]
    for quantities in (model.objective(x, labels), model.evaluation(x, labels, torch.Generator())):
        torch.testing.assert_close(quantities["loss"].double(), -likeliest.log())
        assert quantities["accuracy"].tolist() == [1.0] * 30 + [0.0] * 10
    with pytest.raises(ValueError, match="no labels y"):
        model.objective(x, None)


def test_probabilities_are_of_all_classes_together(model: Classifier) -> None:
    x = images(5)
    said = model.predict_step((x, torch.zeros(5, dtype=torch.long)))["probabilities"]
    torch.testing.assert_close(said.log() - said.log()[:, :1], model(x) - model(x)[:, :1])
    torch.testing.assert_close(said.sum(1), torch.ones(5))


def test_training_images_alone_are_shifted(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    model.max_shift, seen = 2, []
    forward: Callable[[torch.Tensor], torch.Tensor] = model.forward
    monkeypatch.setattr(model, "forward", lambda x: seen.append(x) or forward(x))
    x, labels = images(30), torch.zeros(30, dtype=torch.long)
    model.objective(x, labels)
    model.evaluation(x, labels, torch.Generator())
    assert not torch.equal(seen[0], x) and torch.equal(seen[1], x)


@pytest.mark.parametrize("most", [1, 2])
def test_each_shift_is_as_likely_as_any_other(most: int) -> None:
    torch.manual_seed(0)
    moves = range(-most, most + 1)
    image, times = torch.rand(2, 8, 9), 400 * len(moves) ** 2
    padded = F.pad(image, (most, most, most, most))
    shifted = _shift(image.expand(times, -1, -1, -1), most)
    counts = []
    for down in moves:
        for right in moves:
            rows, columns = slice(most - down, most - down + 8), slice(most - right, most - right + 9)
            counts.append(int((shifted == padded[:, rows, columns]).flatten(1).all(1).sum()))
    assert sum(counts) == times and all(300 < count < 500 for count in counts)  # five standard deviations
