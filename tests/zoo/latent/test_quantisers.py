"""Finite scalar and vector quantisation: against the papers, by enumeration, and against another library."""

import math

import numpy as np
import pytest
import torch
from vector_quantize_pytorch import VectorQuantize

from genzoo.zoo import FSQ, VQ
from genzoo.zoo.codebook import codebook_figures
from genzoo.zoo.latent.quantisers import VectorQuantiser

LEVELS = [(8, 5, 5, 5), (8, 6, 5), (7, 5, 5), (2, 3, 4), (2,), (3,)]


def bound(z, levels, eps=1e-3):
    """The bound function of Mentzer et al. 2023, appendix A.1, with NumPy's operations, for one number."""
    levels = np.asarray(levels)
    half_l = (levels - 1) * (1 - eps) / 2
    offset = np.where(levels % 2 == 1, 0.0, 0.5)
    shift = np.tan(offset / half_l)
    return np.tanh(z + shift) * half_l - offset


# ---- FSQ


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_no_code_of_a_grid_is_lost(levels):
    """Every code: to its vector, to the number that the bound maps there, and back; and no two share a vector."""
    fsq = FSQ(levels).build()
    assert fsq.num_codes == math.prod(levels) and fsq.dim == len(levels)
    codes = torch.arange(fsq.num_codes)
    vectors = fsq.vectors(codes, torch.float64)
    assert len(vectors.unique(dim=0)) == fsq.num_codes
    half_width = torch.tensor(levels) // 2
    whole = vectors * half_width
    assert torch.equal(whole, whole.round())
    # z = f⁻¹ of a number that rounds to the level: one quarter towards the middle, where f reaches every level
    half = (torch.tensor(levels, dtype=torch.float64) - 1) * (1 - 1e-3) / 2
    offset = torch.tensor([0.5 if n % 2 == 0 else 0.0 for n in levels], dtype=torch.float64)
    middle = whole - 0.25 * (whole + offset).sign()
    z = ((middle + offset) / half).atanh() - (offset / half).tan()
    quantised, found = fsq(z)
    assert torch.equal(found, codes) and found.dtype == torch.int64
    assert torch.equal(quantised, vectors)
    assert torch.equal(fsq.vectors(found, torch.float64), quantised)


@pytest.mark.parametrize("number", range(2, 10))
def test_a_number_takes_exactly_its_levels_from_one_end_to_the_other(number):
    """Odd: symmetric around 0; even: one more below, as the paper has it. Nothing beyond, however far out z is."""
    z = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-1e30, 1e30])])[:, None]
    quantised, codes = FSQ([number]).build()(z)
    expected = (torch.arange(number) - number // 2) / (number // 2)
    assert torch.equal(quantised.unique(), expected)
    assert expected[0] == -1 and (expected[-1] == 1) == (number % 2 == 1)
    assert codes.unique().tolist() == list(range(number))
    order = codes[:-2]
    assert bool((order.diff() >= 0).all())  # monotone
    assert codes[-2:].tolist() == [0, number - 1]


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_the_grid_is_that_of_the_paper_and_its_gradient_that_of_the_bound(levels):
    torch.manual_seed(0)
    fsq = FSQ(levels).build()
    z = (2 * torch.randn(500, len(levels), dtype=torch.float64)).requires_grad_()
    theirs = bound(z.detach().numpy(), levels)
    half_width = np.asarray(levels) // 2
    quantised, _ = fsq(z)
    np.testing.assert_allclose(quantised.detach().numpy(), np.round(theirs) / half_width, rtol=0, atol=0)
    weights = torch.randn(z.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * quantised).sum(), z)
    step = 1e-6
    slope = (bound(z.detach().numpy() + step, levels) - bound(z.detach().numpy() - step, levels)) / (2 * step)
    np.testing.assert_allclose(gradient.numpy(), weights.numpy() * slope / half_width, rtol=1e-6, atol=1e-8)


def test_codes_count_levels_in_the_order_of_the_paper():
    """The first number is the fastest: code 1 is one level up in it."""
    fsq = FSQ((3, 5)).build()
    assert fsq.vectors(torch.tensor([0, 1, 3, 14])).tolist() == [[-1, -1], [0, -1], [-1, -0.5], [1, 1]]


# ---- VQ


def pair(decay=0.8, dim=5, num_codes=12, **options):
    """Ours in float64, with a codebook of its own, and the library's with the same one."""
    torch.manual_seed(0)
    ours = VQ(num_codes, dim, decay=decay, revive_below=0.0, **options).build().double()
    ours.usage.fill_(1.0)
    theirs = VectorQuantize(
        dim=dim,
        codebook_size=num_codes,
        decay=decay,
        eps=0.0,
        threshold_ema_dead_code=0,
        commitment_weight=ours.commitment,
        rotation_trick=False,
    )
    book = theirs._codebook
    book.embed.copy_(ours.codebook[None])
    book.embed_avg.copy_(ours.codebook[None])
    book.cluster_size.fill_(1.0)
    return ours, theirs


def test_codes_are_the_nearest_by_an_exhaustive_search():
    ours, _ = pair()
    z = torch.randn(7, 3, 2, 5, dtype=torch.float64)
    quantised, codes = ours(z)
    distances = (z[..., None, :] - ours.codebook).square().sum(-1)
    assert torch.equal(codes, distances.argmin(-1)) and codes.shape == (7, 3, 2)
    assert torch.equal(quantised, ours.codebook[codes]) and torch.equal(ours.vectors(codes, z.dtype), quantised)


def test_it_is_the_library_s_in_what_it_says_its_gradient_and_what_it_learns():
    """Six batches: codes, vectors, the gradient of a loss with the commitment, then the running means.

    Theirs is in float32, and updates its codebook after a batch was quantised; ours before.
    """
    ours, theirs = pair()
    theirs.train()
    for _ in range(6):
        z = torch.randn(4, 9, 5, dtype=torch.float64)
        weights = torch.randn(z.shape, dtype=torch.float64)
        mine, reference = z.clone().requires_grad_(), z.float().requires_grad_()
        quantised, codes = ours(mine)
        commitment = ours.commitment * (mine - quantised.detach()).square().mean()
        expected, their_codes, their_commitment = theirs(reference)
        assert torch.equal(codes, their_codes)
        torch.testing.assert_close(quantised.float(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(commitment.float(), their_commitment.squeeze(), rtol=1e-5, atol=1e-6)
        ((weights * quantised).sum() + commitment).backward()
        ((weights.float() * expected).sum() + their_commitment.sum()).backward()
        torch.testing.assert_close(mine.grad.float(), reference.grad, rtol=1e-4, atol=1e-5)
        before = ours.codebook.clone()
        ours.learn(z)
        assert not torch.equal(ours.codebook, before)
        torch.testing.assert_close(ours.codebook.float(), theirs._codebook.embed[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.usage.float(), theirs._codebook.cluster_size[0], rtol=1e-5, atol=1e-6)


def test_a_running_mean_is_the_weighted_mean_of_all_that_a_code_stood_for():
    """e = Σ_t γ^(T−t) Σ_i z_ti / Σ_t γ^(T−t) n_t, where the code has stood for every vector since it was revived."""
    torch.manual_seed(0)
    vq = VQ(2, 3, decay=0.7).build().double()
    far = torch.full((1, 3), 1e3, dtype=torch.float64)
    batches = [torch.cat([torch.randn(n, 3, dtype=torch.float64), far]) for n in (5, 2, 9)]
    vq.codebook.copy_(torch.cat([torch.zeros(1, 3, dtype=torch.float64), far]))
    vq.usage.fill_(1.0)
    total, weight = torch.zeros(3, dtype=torch.float64), 1.0
    for z in batches:
        vq.learn(z)
        total, weight = 0.7 * total + 0.3 * z[:-1].sum(0), 0.7 * weight + 0.3 * (len(z) - 1)
    torch.testing.assert_close(vq.codebook[0], total / weight)
    torch.testing.assert_close(vq.codebook[1], far[0])


def test_the_first_batch_gives_the_codebook_its_vectors():
    torch.manual_seed(0)
    vq = VQ(6, 4, revive_below=0.0, decay=0.99).build()
    z = 50 + torch.randn(6, 4)
    vq.learn(z)
    assert sorted(map(tuple, vq.codebook.tolist())) == sorted(map(tuple, z.tolist()))
    assert vq(z)[1].unique().numel() == 6
    torch.testing.assert_close(vq.usage, torch.ones(6))


def test_dead_codes_are_revived_at_vectors_of_the_batch_and_not_before_they_are_dead():
    """γ = 0.5 and a tenth of a fair share: unused since the first batch, dead when 0.5^n falls below 0.1, n = 4."""
    torch.manual_seed(0)
    vq = VQ(4, 2, decay=0.5, revive_below=0.1).build()
    spread = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    vq.learn(spread)
    corner = torch.randn(4, 2) * 0.1
    for n in range(1, 5):
        vq.learn(corner)
        kept = [tuple(code) in set(map(tuple, spread.tolist())) for code in vq.codebook.tolist()]
        assert sum(kept) == 3, n
    vq.learn(corner)
    assert float(vq.codebook.abs().max()) < 1
    for _ in range(3):
        vq.learn(corner)
    assert vq(corner)[1].unique().numel() == 4
    # and without revival three of the four stay where they were, for ever
    never = VQ(4, 2, decay=0.5, revive_below=0.0).build()
    never.learn(spread)
    for _ in range(400):  # 0.5^400 is below what float32 holds
        never.learn(corner)
    assert never(corner)[1].unique().numel() == 1
    assert sum(tuple(code) in set(map(tuple, spread.tolist())) for code in never.codebook.tolist()) == 3


def test_more_codes_than_vectors():
    torch.manual_seed(0)
    vq, z = VQ(10, 3).build(), torch.randn(4, 3)
    vq.learn(z)
    assert bool(vq.codebook.isfinite().all())
    counts = [(vq.codebook == row).all(1).sum().item() for row in z]
    assert sum(counts) == 10 and min(counts) == 2 and max(counts) == 3


def test_quantising_learns_nothing():
    torch.manual_seed(0)
    vq = VQ(4, 2).build().train()
    before = {name: value.clone() for name, value in vq.state_dict().items()}
    vq(torch.randn(9, 2))
    assert before.keys() == {"codebook", "usage"}
    assert all(torch.equal(value, before[name]) for name, value in vq.state_dict().items())
    assert not list(vq.parameters())


@pytest.mark.parametrize("kind", [FSQ((8, 5, 5)), VQ(16, 3)], ids=lambda kind: type(kind).__name__)
def test_autocast_and_half_precision_change_no_code(kind):
    torch.manual_seed(0)
    quantiser, z = kind.build(), torch.randn(2000, 3)
    expected = quantiser(z)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantiser(z)
    assert torch.equal(found[1], expected[1]) and torch.equal(found[0], expected[0])
    rounded = quantiser.bfloat16()(z)
    assert torch.equal(rounded[1], expected[1]) and torch.equal(rounded[0], expected[0])


def test_a_model_builds_a_quantiser_of_its_own():
    options = VQ(4, 2)
    first, second = options.build(), options.build()
    assert isinstance(first, VectorQuantiser) and first is not second
    first.learn(torch.randn(9, 2))
    assert not torch.equal(first.codebook, second.codebook)


# ---- how codes are used


def test_perplexity_is_the_exponential_of_the_entropy():
    same = codebook_figures(torch.full((7,), 3))
    assert float(same["codebook_perplexity"]) == pytest.approx(7, rel=1e-12) and float(same["codebook_usage"]) == 1
    one = codebook_figures(torch.tensor([0, 5, 0, 0]))
    assert float(one["codebook_perplexity"]) == 1 and float(one["codebook_usage"]) == 0.25
    uneven = codebook_figures(torch.tensor([2, 0, 1, 1]))  # H = ½ ln 2 + ½ ln 4
    assert float(uneven["codebook_perplexity"]) == pytest.approx(2**1.5, rel=1e-12)
    assert float(uneven["codebook_usage"]) == 0.75


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FSQ(()), "levels"),
        (lambda: FSQ((8, 1)), "levels=1: give a whole number of at least 2"),
        (lambda: FSQ((8, 2.5)), "levels=2.5"),
        (lambda: FSQ((2,) * 21).build(), "2097152 codes: give from 2 to 1048576"),
        (lambda: VQ(1), "num_codes=1"),
        (lambda: VQ(2**21).build(), "2097152 codes"),
        (lambda: VQ(dim=0), "dim=0"),
        (lambda: VQ(decay=1.0), "decay=1.0"),
        (lambda: VQ(decay=math.nan), "decay=nan"),
        (lambda: VQ(commitment=-1.0), "commitment=-1.0"),
        (lambda: VQ(commitment=math.inf), "commitment=inf"),
        (lambda: VQ(revive_below=1.0), "revive_below=1.0"),
    ],
)
def test_impossible_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_larger_batch_than_before_takes_no_code_for_dead():
    """Nor a smaller one: what a code is used is measured by what the others were."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20_000, 4, generator=generator)
    for sizes in ((128, 1536), (1536, 32)):
        torch.manual_seed(0)
        quantiser = VQ(64, dim=4).build()
        for _ in range(400):
            quantiser.learn(data[torch.randint(len(data), (sizes[0],), generator=generator)])
        before, used = quantiser.codebook.clone(), quantiser.usage / quantiser.usage.mean()
        assert used.min() > 2 * VQ(64, dim=4).revive_below  # none is dead
        quantiser.learn(data[torch.randint(len(data), (sizes[1],), generator=generator)])
        moved = (quantiser.codebook - before).norm(dim=1)
        assert moved.max() < 0.5 * torch.cdist(before, before).fill_diagonal_(9).min()
