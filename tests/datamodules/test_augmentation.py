"""Flips and shifts: what they are, by a slower way to the same; how often; of training alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from genzoo.datamodules import Augmentation, ImageDataModule
from genzoo.datamodules.augmentation import mirrored_beyond

GENERATOR = torch.Generator()


def pictures(number: int = 4000, shape: tuple[int, ...] = (3, 5, 7)) -> Tensor:
    """Of which no two are alike, nor a picture and its mirror image."""
    return torch.randint(256, (number, *shape), generator=GENERATOR.manual_seed(0)).byte()


@pytest.mark.parametrize("by", [1, 2, 4])
def test_what_moves_in_is_the_picture_mirrored_at_its_edge(by: int) -> None:
    x = pictures(3).numpy()
    assert (mirrored_beyond(x, by) == np.pad(x, ((0, 0), (0, 0), (by, by), (by, by)), "reflect")).all()


def test_half_of_the_pictures_are_flipped_each_by_itself() -> None:
    x = pictures()
    y = Augmentation(True, 0, x.shape[1:])(x, GENERATOR.manual_seed(1))
    same, mirrored = (y == x).flatten(1).all(1), (y == x.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert abs(int(mirrored.sum()) - 2000) < 5 * 1000**0.5  # five standard deviations of a binomial


def test_each_picture_moves_by_a_step_of_its_own_and_all_are_as_likely() -> None:
    x, most = pictures(), 2
    y = Augmentation(False, most, x.shape[1:])(x, GENERATOR.manual_seed(1))
    steps = [(down, right) for down in range(-most, most + 1) for right in range(-most, most + 1)]
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (most, most), (most, most)), "reflect")
    counts = []
    for down, right in steps:
        moved = padded[:, :, most + down : most + down + 5, most + right : most + right + 7]
        counts.append(int((y.numpy() == moved).reshape(len(x), -1).all(1).sum()))
    assert sum(counts) == len(x)  # every picture is one of them
    expected = len(x) / len(steps)
    chi_squared = sum((count - expected) ** 2 for count in counts) / expected
    assert chi_squared < 24 + 5 * (2 * 24) ** 0.5  # 24 degrees of freedom


def test_the_stored_pictures_stay_as_they_are() -> None:
    x = pictures(50)
    before = x.clone()
    Augmentation(True, 2, x.shape[1:])(x, GENERATOR.manual_seed(1))
    assert torch.equal(x, before)


@pytest.mark.parametrize("shift", [-1, 5, 1.5, "2"])
def test_a_shift_that_is_none_is_refused(shift: object) -> None:
    with pytest.raises(ValueError, match=r"shift is .* from 0 to 4"):
        Augmentation(False, shift, (3, 5, 7))  # type: ignore[arg-type]


class Drawings(ImageDataModule):
    shape, levels, num_classes = (3, 5, 7), 256, None

    def load_images(self, split: str) -> tuple[Tensor, None]:
        return pictures(200), None


def test_only_training_is_augmented_and_anew_in_each_epoch_and_the_same_in_every_run() -> None:
    plain, data, again = (Drawings(val_size=50, batch_size=150) for _ in range(3))
    data.augmentation = again.augmentation = Augmentation(True, 2, Drawings.shape)
    loader, other = data.train_dataloader(), again.train_dataloader()
    (first,), (second,) = list(loader), list(loader)
    assert torch.equal(first, next(iter(other)))
    originals = next(iter(plain.train_dataloader()))
    changed = (first != originals).flatten(1).any(1)
    assert 120 < int(changed.sum()) < 150  # all but 1 in 50
    assert not torch.equal(first.sum(0), second.sum(0))
    for split in ("val", "test"):
        x, y = (next(iter(getattr(module, f"{split}_dataloader")())) for module in (plain, data))
        assert torch.equal(x, y)
    assert torch.equal(torch.cat(list(loader.unshuffled())), torch.cat(list(plain.train_dataloader().unshuffled())))
