"""Which kind of data a shape describes, its codes, and what is refused."""

import math

import pytest
import torch

from genzoo.zoo.modality import check_data, from_codes, modality, to_codes

DATA = [((3, 4, 4), 256, "image"), ((1, 8, 8), 17, "image"), ((1, 9), 256, "waveform"), ((9,), 65, "tokens")]


@pytest.mark.parametrize(("shape", "levels", "kind"), [*DATA, ((2,), None, "points")])
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
    x = from_codes(codes, shape, levels)
    check_data(x, shape, levels, set(), "The model")
    assert torch.equal(to_codes(x, shape, levels), codes)


def test_mu_law_is_that_of_the_standard():
    """F(x) = sgn(x) ln(1 + μ |x|) / ln(1 + μ) with μ = 255; the two codes beside zero are its smallest values."""
    x = torch.tensor([[-1.0, -0.5, -0.01, 0.01, 0.5, 1.0]])
    f = x.sign() * torch.log(1 + 255 * x.abs()) / torch.log(torch.tensor(256.0))
    assert torch.equal(to_codes(x, (1, 6), 256), ((f + 1) * 127.5).round().long())
    assert to_codes(x, (1, 6), 256)[0, [0, -1]].tolist() == [0, 255]
    error = (from_codes(to_codes(x, (1, 6), 256), (1, 6), 256) - x).abs()
    assert bool((error <= 0.03 * x.abs() + 1e-3).all())  # companding: the error is relative


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
