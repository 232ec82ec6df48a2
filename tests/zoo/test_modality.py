"""Which kind of data a shape describes, its codes, and what is refused."""

import math
import re

import pytest
import torch

from genzoo.datamodules import PointsDataModule
from genzoo.zoo.modality import (
    check_data,
    from_codes,
    in_full,
    modality,
    no_number,
    sounding,
    to_codes,
    to_grid,
    unusual_scale,
)

DATA = [((3, 4, 4), 256, "image"), ((1, 8, 8), 17, "image"), ((1, 9), 256, "waveform"), ((9,), 65, "tokens")]


@pytest.mark.parametrize(
    ("shape", "levels", "kind"), [*DATA, ((2,), None, "points"), ((3, 9), None, "series"), ((1, 9), None, "series")]
)
def test_the_shape_and_the_levels_tell_the_modality(shape, levels, kind):
    assert modality(shape, levels) == kind


@pytest.mark.parametrize(
    ("shape", "levels"),
    [
        ((), 2),
        ((0, 3), 2),
        ((2, 9), 256),
        ((1, 1, 1, 1), 2),
        ((4,), 1),
        ((4,), 17.5),
        ((4,), 17.0),
        ((4,), True),
        ((4,), "17"),
        ((4,), math.nan),
        ((1, 8.0, 8), 2),
        ((True, 8, 8), 2),
        (("1", 8, 8), 2),
    ],
)
def test_what_describes_no_data_is_refused(shape, levels):
    with pytest.raises(ValueError, match=r"^(shape|levels)="):
        modality(shape, levels)


@pytest.mark.parametrize(("shape", "levels", "kind"), DATA)
def test_codes_and_data_are_one_to_one(shape, levels, kind):
    codes = torch.arange(levels).view(-1, *(1 for _ in shape)).expand(levels, *shape)
    x = from_codes(codes, levels, kind)
    check_data(x, shape, levels, set(), "The model")
    assert torch.equal(to_codes(x, levels, kind), codes)


def test_mu_law_is_that_of_the_standard():
    """F(x) = sgn(x) ln(1 + μ |x|) / ln(1 + μ) with μ = 255; the two codes beside zero are its smallest values."""
    x = torch.tensor([[-1.0, -0.5, -0.01, 0.01, 0.5, 1.0]])
    f = x.sign() * torch.log(1 + 255 * x.abs()) / torch.log(torch.tensor(256.0))
    assert torch.equal(to_codes(x, 256, "waveform"), ((f + 1) * 127.5).round().long())
    assert to_codes(x, 256, "waveform")[0, [0, -1]].tolist() == [0, 255]
    error = (from_codes(to_codes(x, 256, "waveform"), 256, "waveform") - x).abs()
    assert bool((error <= 0.03 * x.abs() + 1e-3).all())  # companding: the error is relative


def test_a_sound_ends_after_its_last_sample_that_is_not_zero():
    x = torch.tensor([[0.5, 0, -0.5, 0, 0], [0, 0, 0, 0.5, 0], [0.5, 0, 0, 0, -0.5], [0, 0, 0, 0, 0]])
    assert sounding(x, 256).tolist() == [[True] * n + [False] * (5 - n) for n in (3, 4, 5, 1)]
    assert bool(sounding(x, 255).all())  # here 0 is a sound
    assert torch.equal(sounding(x.unsqueeze(1), 256), sounding(x, 256).unsqueeze(1))


@pytest.mark.parametrize("levels", [2, 4, 256, 65536])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_silence_that_was_quantised_is_sound(levels, dtype):
    quiet = to_grid(torch.zeros(1, 1, 9), levels, "waveform").to(dtype)
    assert bool((quiet != 0).all()) and float(quiet.abs().max()) < (1 if levels == 2 else 2 / levels) + 1e-9
    assert bool(sounding(quiet, levels).all())
    assert float(from_codes(torch.arange(levels), levels, "waveform").to(dtype).abs().min()) > 0


@pytest.mark.parametrize(
    ("x", "shape", "levels", "error", "message"),
    [
        (torch.tensor([[0, 65, 1]]), (3,), 65, ValueError, "vocabulary of levels=65"),
        (torch.tensor([[0.0, 1.0, 1.0]]), (3,), 65, TypeError, "int64"),
        (torch.tensor([[[0.0, 1.5]]]), (1, 2), 256, ValueError, r"values in \[-1, 1\]"),
        (torch.zeros(1, 1, 2, dtype=torch.int16), (1, 2), 256, TypeError, "float data in"),
    ],
)
def test_bad_tokens_and_sounds_get_one_clear_error(x, shape, levels, error, message):
    with pytest.raises(error, match=message):
        check_data(x, shape, levels, set(), "The model")


# ---------------------------------------------------------------------------------------------- half precision

HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("shape", "levels", "kind"), [*DATA, ((2, 5, 5), 2, "image")])
def test_data_that_came_in_half_precision_have_the_codes_that_they_had_before(shape, levels, kind, dtype):
    """k/255 is no number of bfloat16, but no two of them are rounded to the same one."""
    codes = torch.arange(levels).view(-1, *(1 for _ in shape)).expand(levels, *shape)
    x = from_codes(codes, levels, kind)
    low = x.to(dtype) if x.is_floating_point() else x
    check_data(low, shape, levels, {dtype}, "The model")
    check_data(x, shape, levels, {dtype}, "The model")
    again = in_full(low, levels, kind)
    assert again.dtype == x.dtype
    assert torch.equal(to_codes(again, levels, kind), codes)
    assert torch.equal(again, x) or (kind == "waveform" and torch.equal(again, low.float()))


def test_data_of_a_wider_precision_stay_as_they_are():
    for x in (torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2).double()):
        assert in_full(x, 256, "image") is x
    points = torch.randn(5, 2).bfloat16()
    assert torch.equal(in_full(points, None, "points"), points.float())


@pytest.mark.parametrize(
    ("x", "levels", "taken", "error", "message"),
    [
        (torch.rand(1, 1, 2, 2).half(), 2, {torch.float16}, ValueError, "grid k/1"),
        (torch.rand(1, 1, 2, 2).bfloat16(), 4096, {torch.bfloat16}, ValueError, "bfloat16 cannot tell apart"),
        (
            torch.zeros(1, 1, 2, 2).bfloat16(),
            2,
            {torch.float32},
            TypeError,
            "float32, but was given torch.bfloat16",
        ),
        (torch.zeros(1, 1, 2, 2).double(), 2, {torch.bfloat16}, TypeError, r"bfloat16 or torch.float32, but"),
    ],
)
def test_what_half_precision_cannot_hold_is_refused(x, levels, taken, error, message):
    with pytest.raises(error, match=message):
        check_data(x, (1, 2, 2), levels, taken, "The model")


@pytest.mark.parametrize("kind", ["image", "waveform"])
def test_the_nearest_data(kind):
    x = torch.linspace(-3, 3, 50_001)
    grid = from_codes(torch.arange(16), 16, kind)
    steps = to_codes(grid, 16, kind)
    assert steps.tolist() == list(range(16))
    near = to_grid(x, 16, kind)
    assert torch.isin(near, grid).all()
    assert torch.equal(to_grid(grid, 16, kind), grid)
    assert bool((near.diff() >= 0).all())
    if kind == "image":  # uniform steps: nearest in the data's units
        torch.testing.assert_close((near - x).abs(), (grid - x[:, None]).abs().amin(1))
    assert to_grid(x.bfloat16(), 16, kind).dtype == torch.float32
    assert to_grid(x.double(), 16, kind).dtype == torch.float64


# ---- continuous data far from unit scale


def unit(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("scale", "shift", "said"),
    [
        (
            (1, 3e4, 1),
            (0, 0, 0),
            r"column 1 of the data has the mean .* deviation [23](\.\d*)?e\+04, and 1 of 3 columns",
        ),
        ((1, 1, 1), (0, 0, 2000), r"column 2 of the data has the mean 2e\+03 .* deviation (1|0\.9|1\.0)"),
        ((1e-3, 1, 1), (5, 0, 0), r"column 0 of the data has the mean 5 and the standard deviation 0\.00"),
        ((100, 20, 1), (0, 0, 0), r"column 0 .*, and 2 of 3 columns"),
        ((3, 0.3, 0), (5, -5, 7), None),  # within bounds; a constant column is of no scale
    ],
)
def test_a_column_far_from_unit_scale_is_named(scale, shift, said):
    x = unit(64, 3) * torch.tensor(scale) + torch.tensor(shift)
    found = unusual_scale(x)
    assert found is None if said is None else re.match(said, found) and "Standardise each column" in found


def test_images_and_sounds_are_looked_at_by_channel():
    x = unit(8, 3, 4, 4)
    assert unusual_scale(x) is None
    x[:, 2] *= 500
    assert "channel 2 of the data" in unusual_scale(x) and "1 of 3 channels" in unusual_scale(x)
    assert "channel 0 of the data" in unusual_scale(unit(8, 1, 50) * 0.01)


def test_what_the_model_divides_by_counts():
    x = 200 * unit(64, 2)
    assert "data_scale" not in unusual_scale(x)  # of a model that has none
    assert "or set data_scale" in unusual_scale(x, 1.0) and unusual_scale(x, 200.0) is None
    assert "after its division by data_scale=0.5" in unusual_scale(x, 0.5)


def test_few_data_have_no_scale():
    assert unusual_scale(1000 * unit(7, 2)) is None
    for seed in range(500):  # eight suffice: of unit data nothing is said by chance
        assert unusual_scale(torch.randn(8, 2, generator=torch.Generator().manual_seed(seed))) is None


@pytest.mark.parametrize("name", ["ring", "grid", "moons", "spirals", "checkerboard"])
def test_our_points_are_of_unit_scale(name):
    assert unusual_scale(next(iter(PointsDataModule(name).train_dataloader()))[0]) is None


def test_why_a_loss_is_no_number():
    x = unit(16, 2)
    assert no_number(x).startswith("the data are finite, so the training diverged")
    assert "the training diverged, and column 1" in no_number(x * torch.tensor([1.0, 1e4]))
    x[3, 0], x[5] = torch.nan, -torch.inf
    assert no_number(x) == "2 of 16 data in the batch hold NaN or infinite values; clean the data"
    assert "diverged" in no_number(torch.zeros(16, 5, dtype=torch.int64))  # tokens
