"""The film of a generator learning."""

import pytest
import torch
from torch import Tensor

from genzoo.zoo.hub.film import Film
from genzoo.zoo.media import GAP


class Counts(torch.nn.Module):
    """Draws images as bright as the number of times it was told to learn."""

    shape = (1, 8, 8)

    def __init__(self, shape: tuple[int, ...] = (1, 8, 8)) -> None:
        super().__init__()
        self.shape, self.level = shape, 0

    def sample(self, num_samples: int, *, labels: Tensor | None = None, generator: object = None) -> Tensor:
        return torch.full((num_samples, *self.shape), self.level / 255)


def filmed(offers: int, length: int) -> Film:
    film, model = Film(length), Counts()
    for step in range(offers):
        model.level = step
        film.take(model, step)  # type: ignore[arg-type]
    return film


@pytest.mark.parametrize("offers", [1, 3, 4, 5, 8, 9, 100])
def test_frames_are_few_in_order_and_evenly_spread(offers: int) -> None:
    film = filmed(offers, length=4)
    assert film.steps[0] == 0 and 1 <= len(film.frames) <= 4
    gaps = {b - a for a, b in zip(film.steps, film.steps[1:], strict=False)}
    assert len(gaps) <= 1
    assert offers - film.steps[-1] <= max(gaps, default=1)  # none is missing at the end
    assert [int(frame.flatten()[0]) for frame in film.frames] == film.steps


def test_the_last_is_always_kept_and_rows_are_moments() -> None:
    film, model = filmed(6, length=4), Counts()
    model.level = 200
    film.take(model, 99, last=True)  # type: ignore[arg-type]
    assert film.steps == [0, 2, 4, 99]
    early = filmed(6, length=4)
    early.take(model, 2, last=True)  # type: ignore[arg-type]
    assert early.steps == [0, 2] and int(early.frames[-1].flatten()[0]) == 200
    picture = film.picture()
    assert picture is not None
    rows = (picture.pixels.shape[0] - GAP) // 4
    values = [int(picture.pixels[GAP + rows // 2 + i * rows, GAP + 1, 0]) for i in range(4)]
    assert values == [0, 2, 4, 200]


@pytest.mark.parametrize("offers", [3, 4, 5, 7, 8, 9, 16, 17])
def test_it_is_never_too_long(offers: int) -> None:
    film, model = filmed(offers, length=4), Counts()
    film.take(model, 1000, last=True)  # type: ignore[arg-type]
    assert len(film.frames) <= 4 and film.steps[-1] == 1000
    for step in range(1001, 1040):  # a second fit with the same film
        film.take(model, step)  # type: ignore[arg-type]
        assert len(film.frames) == len(film.steps) <= 4


def test_an_interrupted_film_goes_on() -> None:
    first, whole, model = filmed(7, length=4), filmed(20, length=4), Counts()
    second = Film(length=4)
    second.load_state_dict(first.state_dict())
    for step in range(7, 20):
        model.level = step
        second.take(model, step)  # type: ignore[arg-type]
    assert second.steps == whole.steps and all(map(torch.equal, second.frames, whole.frames))


def test_what_cannot_be_shown_is_not_filmed() -> None:
    film = Film()
    film.take(Counts((1, 40)), 0)  # type: ignore[arg-type]
    film.take(torch.nn.Linear(1, 1), 0)  # type: ignore[arg-type]
    assert film.picture() is None


def test_points_are_shown_where_the_trained_model_puts_them() -> None:
    film, model = Film(), Counts((2,))
    for step, level in enumerate((0, 255)):
        model.level = level
        film.take(model, step)  # type: ignore[arg-type]
    picture = film.picture()
    assert picture is not None and picture.pixels.shape == (256, 128, 3)
    first, last = picture.pixels.split(128)
    assert bool((first == 255).all()) and bool((last < 255).any())  # (0, 0) lies outside the last frame's window


def test_points_are_shown_where_the_real_ones_lie() -> None:
    film, model = Film(), Counts((2,))
    for step, level in enumerate((0, 255)):  # first on the real points' place, then far away
        model.level = level
        film.take(model, step)  # type: ignore[arg-type]
    picture = film.picture(torch.tensor([[-0.5, -0.5], [0.5, 0.5]]))
    assert picture is not None
    first, last = picture.pixels.split(128)
    assert bool((first[60:68, 60:68] < 255).any()) and bool((last == 255).all())


def test_large_images_are_shown_smaller() -> None:
    film, model = Film(), Counts((3, 65, 33))
    corner = torch.arange(3 * 65 * 33).remainder(256).view(3, 65, 33) / 255
    model.sample = lambda num_samples, **options: corner.expand(num_samples, -1, -1, -1)  # type: ignore[method-assign]
    film.take(model, 0)  # type: ignore[arg-type]
    (frame,) = film.frames
    assert frame.shape == (8, 3, 22, 11)
    expected = (255 * corner[:, :3, :3]).mean((1, 2)).round()
    assert torch.equal(frame[0, :, 0, 0].float(), expected)
    assert float(frame[0, 0, -1, -1]) == pytest.approx(float(255 * corner[0, 63:, 30:].mean()), abs=0.6)
    small = Counts((3, 32, 20))
    film = Film()
    film.take(small, 0)  # type: ignore[arg-type]
    assert film.frames[0].shape == (8, 3, 32, 20)
