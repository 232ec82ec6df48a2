"""Patches against loops, and back."""

import math

import pytest
import torch
from torch.nn import functional as F

from genzoo.zoo.networks.patches import folded, unfolded


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_a_patch_is_a_piece_of_the_datum(patch):
    """By loops, place after place."""
    images, series = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 7)
    rows, columns = math.ceil(5 / patch), math.ceil(7 / patch)
    padded = F.pad(images, (0, columns * patch - 7, 0, rows * patch - 5))
    pieces = [
        padded[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].flatten(1)
        for i in range(rows)
        for j in range(columns)
    ]
    assert torch.equal(folded(images, patch), torch.stack(pieces, 1))
    padded = F.pad(series, (0, columns * patch - 7))
    pieces = [padded[:, :, i * patch : (i + 1) * patch].flatten(1) for i in range(columns)]
    assert torch.equal(folded(series, patch), torch.stack(pieces, 1))
    for x in (images, series):
        assert torch.equal(unfolded(folded(x, patch), x.shape[1:], patch), x)
