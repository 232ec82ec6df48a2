"""A transformer that sees all: its patches, its positions, and that nothing is hidden from anything."""

import pytest
import torch
from torch.nn import functional as F

from genzoo.zoo.networks.attention import attend_to_all, grid_rotations, rotate, rotations
from genzoo.zoo.networks.masked_transformer import MaskedTransformer, patch_of
from genzoo.zoo.networks.transformer import Transformer


@pytest.mark.parametrize(("shape", "patch"), [((7,), None), ((1, 6, 4), 2), ((3, 6, 9), 3), ((2, 5, 3), 1)])
def test_patches_are_put_back_where_they_were(shape, patch) -> None:
    network = MaskedTransformer(shape, 5, width=16, depth=1, heads=2, patch=patch)
    codes = torch.randint(5, (4, *shape))
    patches = network.patched(codes)
    assert patches.shape[2] == network.entries == codes[0].numel() // network.transformer.max_length
    logits = F.one_hot(patches, 5).flatten(2)
    assert torch.equal(network.unpatched(logits).argmax(1), codes)
    if patch and patch > 1:  # a patch is a square
        assert torch.equal(patches[:, 0], codes[:, :, :patch, :patch].flatten(1))
        assert torch.equal(patches[:, 1], codes[:, :, :patch, patch : 2 * patch].flatten(1))


@pytest.mark.parametrize(("shape", "patch"), [((6,), None), ((2, 4, 4), 2)])
def test_every_output_depends_on_every_input(shape, patch) -> None:
    torch.manual_seed(0)
    network = MaskedTransformer(shape, 5, width=16, depth=1, heads=2, patch=patch).double()
    codes = torch.randint(5, (1, *shape))
    before, size = network(codes), codes.numel()
    for j in range(size):
        changed = codes.clone()
        changed.view(-1)[j] = 5
        moved = (network(changed) - before).abs().amax(1).flatten()
        assert moved.shape == (size,) and bool((moved > 1e-12).all())


def test_where_all_is_masked_positions_still_differ() -> None:
    network = MaskedTransformer((6,), 5, width=16, depth=1, heads=2)
    logits = network(torch.full((1, 6), 5))
    assert len({tuple(column.tolist()) for column in logits[0].T}) == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_attention_to_all_is_its_formula(dtype) -> None:
    q, k, v = torch.randn(3, 2, 3, 70, 8, dtype=torch.float64).to(dtype)
    w = (q.double() @ k.double().transpose(-1, -2) / 8**0.5).softmax(-1)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(attend_to_all(q, k, v).double(), w @ v.double(), rtol=0, atol=tolerance)


def test_products_on_a_grid_depend_on_how_far_apart_rows_and_columns_are() -> None:
    rows, columns, dim = 4, 5, 8
    cos, sin = grid_rotations(rows, columns, dim)
    assert cos.shape == sin.shape == (rows * columns, dim // 2)
    q, k = (rotate(torch.randn(dim).expand(rows * columns, dim), cos, sin) for _ in range(2))
    scores = (q @ k.T).view(rows, columns, rows, columns)
    torch.testing.assert_close(scores[:-1, :, :-1, :], scores[1:, :, 1:, :], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[:, :-1, :, :-1], scores[:, 1:, :, 1:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(scores[0, 0, 1, 0], scores[0, 0, 0, 1], atol=1e-2)  # a row is no column
    line = rotations(rows, dim // 2)[0]
    assert torch.equal(cos[::columns, :2], line)


def test_a_grid_has_as_many_positions_as_it_says() -> None:
    with pytest.raises(ValueError, match="has 6 positions, but max_length=5"):
        Transformer(16, 1, 2, max_length=5, grid=(2, 3))
    with pytest.raises(ValueError, match="multiple of 4 × heads"):
        Transformer(12, 1, 2, max_length=6, grid=(2, 3))


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((12,), 1), ((1, 8, 8), 1), ((1, 28, 28), 2), ((3, 64, 64), 4), ((1, 30, 45), 3), ((1, 7, 9), 1)],
)
def test_patches_are_as_small_as_256_of_them_allow(shape, patch) -> None:
    assert patch_of(shape, None) == patch


def test_labels_are_for_a_network_with_classes() -> None:
    plain, classes = (MaskedTransformer((6,), 5, width=16, depth=1, heads=2, num_classes=c) for c in (None, 3))
    symbols = torch.full((2, 6), 5)
    with pytest.raises(ValueError, match="network without classes"):
        plain(symbols, torch.tensor([0, 1]))
    assert torch.equal(classes(symbols), classes(symbols, torch.tensor([3, 3])))
    first, second = classes(symbols, torch.tensor([0, 1]))
    assert not torch.allclose(first, second)
