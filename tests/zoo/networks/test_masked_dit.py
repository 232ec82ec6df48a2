"""A DiT that reads symbols: what it is told is what it says, every entry sees every other, and labels reach it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from genzoo.zoo import MaskedDiffusion
from genzoo.zoo.networks.masked_dit import VECTOR, MaskedDiT

SHAPES = [((6,), 1), ((1, 6, 4), 2), ((3, 5, 7), 2), ((2, 4, 4), 1)]
SIZES = {"width": 16, "depth": 1, "heads": 2}


class Same(nn.Module):
    """In place of the DiT: vectors as they are, and what else it was told."""

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        self.told = (x.shape, c_noise, labels)
        return x


@pytest.mark.parametrize(("shape", "patch"), SHAPES)
def test_an_entry_is_told_by_the_vector_that_is_read(shape, patch) -> None:
    """With vectors that are orthogonal, of length √d, the logits are √d at what was read, and 0."""
    network = MaskedDiT(shape, 5, patch=patch, **SIZES)
    network.dit = same = Same()
    nn.init.eye_(network.embedding.weight).data.mul_(VECTOR**0.5)
    symbols = torch.randint(6, (4, *shape))
    symbols[0] = 5
    expected = VECTOR**0.5 * F.one_hot(symbols, 6)[..., :5].movedim(-1, 1)
    torch.testing.assert_close(network(symbols), expected.float())
    _, share, labels = same.told
    assert labels is None and float(share[0]) == 1
    torch.testing.assert_close(share, (symbols == 5).flatten(1).float().mean(1))


@pytest.mark.parametrize(("shape", "patch"), SHAPES)
def test_every_output_depends_on_every_input(shape, patch) -> None:
    torch.manual_seed(0)
    network = MaskedDiT(shape, 5, patch=patch, **SIZES).double()
    codes = torch.randint(5, (1, *shape))
    before, size = network(codes), codes.numel()
    for j in range(size):
        changed = codes.clone()
        changed.view(-1)[j] = (codes.view(-1)[j] + 1) % 5  # not the mask, of which the noise level would tell
        moved = (network(changed) - before).abs().amax(1).flatten()
        assert moved.shape == (size,) and bool((moved > 1e-12).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_in_any_precision_the_share_of_masks_is_told_to_all_its_digits(dtype) -> None:
    """Of 784 there are 785 shares, of which half precision tells a few hundred."""
    network = MaskedDiT((784,), 2, **SIZES).to(dtype)
    network.dit = told = Same()
    network(2 * (torch.arange(784) < torch.arange(785)[:, None]).long())
    _, shares, _ = told.told
    torch.testing.assert_close(shares, torch.arange(785).to(shares) / 784)
    assert shares.dtype == torch.promote_types(dtype, torch.float32) and len(shares.unique()) == 785


def test_tokens_are_a_position_each_however_many_they_are() -> None:
    network = MaskedDiT((200,), 65, width=80, depth=1)
    assert (network.dit.patch, network.vector) == (1, 80)
    with pytest.raises(ValueError, match="patch=2: tokens are not cut into patches"):
        MaskedDiT((200,), 65, patch=2)


@pytest.mark.parametrize(("shape", "levels"), [((6, 6), 4), ((1, 6, 6), 0), ((0, 6, 6), 4), ((), 4)])
def test_what_is_neither_tokens_nor_an_image_is_refused(shape, levels) -> None:
    with pytest.raises(ValueError, match=r"a MaskedDiT is for tokens \(T,\) and images"):
        MaskedDiT(shape, levels)


def test_symbols_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has shape=\(1, 4, 4\), but was given \(2, 4, 4\)"):
        MaskedDiT((1, 4, 4), 5, **SIZES)(torch.zeros(3, 2, 4, 4, dtype=torch.long))


def test_any_distribution_of_a_text_of_many_symbols_can_be_told() -> None:
    """The logits of V symbols have rank V − 1 at most, of vectors that are as wide as the transformer."""
    assert MaskedDiT((6,), 300, width=64, depth=1).embedding.weight.shape == (301, 64)
    assert MaskedDiT((3, 8, 8), 300, width=64, depth=1, patch=2).embedding.weight.shape == (301, VECTOR)


def test_masked_diffusion_takes_it_by_name_in_the_sizes_that_are_stated() -> None:
    model = MaskedDiffusion(
        (1, 28, 28), 256, network="dit", patch=4, width=48, depth=2, heads=3, dropout=0.25, checkpointing=True
    )
    dit = model.network.dit
    assert (dit.patch, dit.inlet.out_features, len(dit.blocks), dit.blocks[0].heads) == (4, 48, 2, 3)
    assert (dit.checkpointing, dit.blocks[0].dropout) == (True, 0.25)
    matrices = {id(p) for group in model.parameter_groups()[:1] for p in group["params"]}
    assert id(dit.blocks[0].queries.weight) in matrices and id(model.network.embedding.weight) not in matrices


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"network": "unet"}, "network='unet': choose 'transformer' or 'dit', or give a module of your own"),
        ({"network": "dit", "expansion": 4}, "expansion=4: network='dit' has no such size; leave it out"),
        (
            {"network": nn.Linear(2, 2), "checkpointing": True},
            "checkpointing=True: a network of your own has no such",
        ),
        ({"network": "dit", "width": 16.0}, "width=16.0: give a whole number"),
        ({"depth": "2"}, "depth='2': give a whole number"),
        ({"checkpointing": True}, "checkpointing=True: network='transformer' has no such size; leave it out"),
    ],
)
def test_what_a_network_has_not_is_refused(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        MaskedDiffusion((1, 8, 8), 5, **options)
