"""A transformer that sees all: its patches, its positions, and that nothing is hidden from anything."""

import pytest
import torch
from torch.nn import functional as F

from genzoo.zoo.networks.masked_dit import MaskedDiT
from genzoo.zoo.networks.masked_transformer import MaskedTransformer, patch_of
from genzoo.zoo.networks.transformer import Transformer

both = pytest.mark.parametrize("kind", [MaskedTransformer, MaskedDiT])


@pytest.mark.parametrize(("shape", "patch"), [((7,), None), ((1, 6, 4), 2), ((3, 6, 9), 3), ((2, 5, 3), 1)])
def test_each_entry_has_symbols_of_its_own_and_is_told_by_them(shape, patch) -> None:
    """With vectors that are orthogonal and blocks that do nothing, the logits are 1 at what was read, and 0."""
    entries = 1 if len(shape) == 1 else shape[0] * patch**2
    network = MaskedTransformer(shape, 5, width=8 * entries, depth=1, heads=2, patch=patch)
    network.transformer = torch.nn.Identity()
    torch.nn.init.eye_(network.embedding.weight)
    torch.nn.init.zeros_(network.position)
    symbols = torch.randint(6, (4, *shape))
    expected = F.one_hot(symbols, 6)[..., :5].movedim(-1, 1)
    torch.testing.assert_close(network(symbols), expected.float())
    torch.testing.assert_close(network(symbols.transpose(1, -1).contiguous().transpose(1, -1)), expected.float())


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


@both
def test_where_all_is_masked_positions_still_differ(kind) -> None:
    network = kind((6,), 5, width=16, depth=1, heads=2)
    logits = network(torch.full((1, 6), 5))
    assert len({tuple(column.tolist()) for column in logits[0].T}) == 6


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


@both
def test_labels_are_for_a_network_with_classes(kind) -> None:
    plain, classes = (kind((6,), 5, width=16, depth=1, heads=2, num_classes=c) for c in (None, 3))
    symbols = torch.full((2, 6), 5)
    with pytest.raises(ValueError, match="network without classes"):
        plain(symbols, torch.tensor([0, 1]))
    assert torch.equal(classes(symbols), classes(symbols, torch.tensor([3, 3])))
    first, second = classes(symbols, torch.tensor([0, 1]))
    assert not torch.allclose(first, second)
