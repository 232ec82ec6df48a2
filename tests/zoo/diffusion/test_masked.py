"""Masked diffusion on spaces so small that every datum, every mask and every order can be looked at."""

import math
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from genzoo.zoo import MaskedDiffusion, PerDatum
from genzoo.zoo.diffusion.masking import mask_of, masked_share, time_of_share, times_of_counts
from genzoo.zoo.diffusion.unmasking import ancestral_turns, first_hitting_turns
from genzoo.zoo.networks.masked_transformer import patch_of

TOKENS, LEVELS = (3,), 3
SPACES = [((3,), 3), ((1, 2, 2), 2)]
SCHEDULES = ["linear", "cosine"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every(shape: tuple[int, ...], levels: int) -> Tensor:
    """All data of a space, as codes: (levels^D, *shape)."""
    return torch.tensor(list(product(range(levels), repeat=math.prod(shape)))).view(-1, *shape)


def peaked(shape: tuple[int, ...], levels: int, seed: int = 0) -> Tensor:
    """A distribution over all data whose entries depend strongly on each other."""
    return (2 * torch.randn(levels ** math.prod(shape), dtype=torch.float64, generator=seeded(seed))).softmax(0)


class Exact(nn.Module):
    """p(x_i | the entries that are not masked) of a known distribution, p(x | y) where there are classes: by sums."""

    def __init__(self, shape: tuple[int, ...], levels: int, *tables: Tensor) -> None:
        super().__init__()
        self.levels, self.every = levels, every(shape, levels).flatten(1)
        self.tables = nn.Parameter(torch.stack(tables))  # a row for each class

    def forward(self, symbols: Tensor, labels: Tensor | None) -> Tensor:
        flat = symbols.flatten(1)
        fits = ((flat[:, None] == self.every) | (flat[:, None] == self.levels)).all(2)  # (B, data)
        mixed = self.tables.mean(0).expand(len(flat), -1)
        own = mixed if labels is None else torch.cat([self.tables, self.tables.mean(0, keepdim=True)])[labels]
        p = torch.einsum("bn,ndk->bkd", fits * own, nn.functional.one_hot(self.every, self.levels).to(own))
        return p.clamp_min(1e-300).log().view(len(flat), self.levels, *symbols.shape[1:])


def exact(shape: tuple[int, ...] = TOKENS, levels: int = LEVELS, **options: Any) -> tuple[MaskedDiffusion, Tensor]:
    """A model whose network is that of a known distribution, and the distribution."""
    p = peaked(shape, levels)
    return MaskedDiffusion(shape, levels, network=Exact(shape, levels, p), **options).double().eval(), p


def inexact(shape: tuple[int, ...] = TOKENS, levels: int = LEVELS, **options: Any) -> MaskedDiffusion:
    """A model whose conditionals belong to no distribution."""
    torch.manual_seed(0)
    model = MaskedDiffusion(shape, levels, width=16, depth=2, heads=2, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model


@torch.no_grad()
def by_size(model: MaskedDiffusion, codes: Tensor) -> Tensor:
    """(D, data): E_{|M| = n} Σ_{i ∈ M} log p(x_i | x_{∖M}) for n = 1 … D, over all sets M."""
    sums: dict[int, list[Tensor]] = {n: [] for n in range(1, model.num_dims + 1)}
    for chosen in product([False, True], repeat=model.num_dims):
        if any(chosen):
            mask = torch.tensor(chosen).view(model.shape)
            log_p = model.logits(codes.masked_fill(mask, model.mask), None).log_softmax(1)
            each = log_p.gather(1, codes.unsqueeze(1)).squeeze(1)
            sums[sum(chosen)].append((each * mask).flatten(1).sum(1))
    return torch.stack([torch.stack(of_size).mean(0) for of_size in sums.values()])


def bound(model: MaskedDiffusion, codes: Tensor) -> Tensor:
    """(data,): Σ_n 1/n E_{|M| = n} Σ_{i ∈ M} log p(x_i | x_{∖M})."""
    sizes = torch.arange(1, model.num_dims + 1).unsqueeze(1)
    return (by_size(model, codes) / sizes).sum(0)


def chi_square(samples: Tensor, model: MaskedDiffusion, p: Tensor) -> float:
    """How likely a sample of p differs from it as much."""
    powers = model.mask ** torch.arange(model.num_dims - 1, -1, -1)
    counts = (model.codes(samples).flatten(1) * powers).sum(1).bincount(minlength=len(p))
    assert bool((counts[p == 0] == 0).all())
    expected = p * len(samples)
    return float(stats.chisquare(counts[p > 0].numpy(), expected[p > 0].numpy()).pvalue)


def total_variation(samples: Tensor, model: MaskedDiffusion, p: Tensor) -> float:
    powers = model.mask ** torch.arange(model.num_dims - 1, -1, -1)
    share = (model.codes(samples).flatten(1) * powers).sum(1).bincount(minlength=len(p)) / len(samples)
    return float((share - p).abs().sum() / 2)


# ------------------------------------------------------------------------------------------------------- the bound


@pytest.mark.parametrize(("shape", "levels"), SPACES)
def test_the_bound_of_the_true_conditionals_is_the_log_likelihood(shape: tuple[int, ...], levels: int) -> None:
    model, p = exact(shape, levels)
    torch.testing.assert_close(bound(model, every(shape, levels)), p.log(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "levels"), SPACES)
def test_the_bounds_of_all_data_are_probabilities_that_sum_to_less_than_one(
    shape: tuple[int, ...], levels: int
) -> None:
    model = inexact(shape, levels)
    total = float(bound(model, every(shape, levels)).exp().sum())
    assert 0.1 < total < 0.999


def test_the_bound_is_below_the_log_likelihood_of_what_is_sampled() -> None:
    """p(x) of first-hitting samples is the mean over orders of the product of conditionals; the bound, of its log."""
    model, codes = inexact(), every(TOKENS, LEVELS)
    products = []
    for order in permutations(range(3)):
        symbols, log_p = torch.full_like(codes, model.mask), torch.zeros(len(codes), dtype=torch.float64)
        for i in order:
            with torch.no_grad():
                each = model.logits(symbols, None).log_softmax(1)[..., i]
            log_p += each.gather(1, codes[:, i : i + 1]).squeeze(1)
            symbols[:, i] = codes[:, i]
        products.append(log_p)
    orders = torch.stack(products)
    p = orders.exp().mean(0)
    torch.testing.assert_close(p.sum(), torch.tensor(1.0).double())
    torch.testing.assert_close(orders.mean(0), bound(model, codes), rtol=0, atol=1e-12)
    assert bool((bound(model, codes) < p.log()).all())
    samples = model.sample(20_000, steps=3, generator=seeded())
    assert chi_square(samples, model, p) > 1e-3


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_continuous_time_bound_is_the_same_whatever_the_schedule(schedule: Any) -> None:
    """∫ m′/m E_{M ~ m(t)} Σ_{i ∈ M} log p dt, by Gauss-Legendre quadrature and a sum over all masks."""
    model, codes = inexact(), every(TOKENS, LEVELS)
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(40))
    t = ((nodes + 1) / 2).requires_grad_()
    share = masked_share(schedule, t)
    (slope,) = torch.autograd.grad(share.sum(), t)
    share, total = share.detach(), torch.zeros(len(codes), dtype=torch.float64)
    for n, mean in enumerate(by_size(model, codes), start=1):
        density = math.comb(3, n) * slope * share ** (n - 1) * (1 - share) ** (3 - n)
        total += (weights / 2 * density).sum() * mean
    torch.testing.assert_close(total, bound(model, codes), rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_and_its_inverse(schedule: Any) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    share = masked_share(schedule, t)
    assert share[0] == 0 and share[-1] == 1 and bool((share.diff() > 0).all())
    torch.testing.assert_close(time_of_share(schedule, share), t, rtol=0, atol=1e-7)  # asin is steep at its end
    times = times_of_counts(schedule, 10)
    torch.testing.assert_close(masked_share(schedule, times) * 10, torch.arange(11.0).double())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_weights_make_up_for_how_often_each_number_is_trained(schedule: Any) -> None:
    model, codes = inexact(schedule=schedule), every(TOKENS, LEVELS)
    probability = times_of_counts(schedule, 3).diff()
    expected = (probability * model.weights).unsqueeze(1) * by_size(model, codes)
    torch.testing.assert_close(expected.sum(0), bound(model, codes), rtol=1e-6, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@torch.no_grad()
def test_the_expected_loss_is_minus_the_bound(schedule: Any) -> None:
    model = inexact(schedule=schedule)
    torch.manual_seed(0)
    for codes in every(TOKENS, LEVELS)[[0, 14]]:
        loss = model.objective(codes.expand(20_000, -1), None)["loss"]
        error = float(loss.std()) / math.sqrt(len(loss))
        assert abs(float(loss.mean() + bound(model, codes[None]))) < 4 * error
        assert error < 0.03 * float(loss.mean())


def test_the_times_of_a_batch_are_spread_evenly() -> None:
    """Of the numbers of masked entries each occurs as often as another, in any one batch of a linear schedule."""
    counts: list[Tensor] = []

    class Counting(nn.Module):
        def forward(self, symbols: Tensor, labels: Tensor | None) -> Tensor:
            counts.append((symbols == 3).sum(1))
            return torch.zeros(len(symbols), 3, 4)

    model = MaskedDiffusion((4,), 3, network=Counting())
    model.register_parameter("scale", nn.Parameter(torch.ones(())))
    for _ in range(5):
        model.objective(torch.zeros(12, 4, dtype=torch.int64), None)
        assert counts.pop().bincount(minlength=5).tolist() == [0, 3, 3, 3, 3]


@pytest.mark.parametrize("num_particles", [1, 3, 4])
def test_the_estimate_is_unbiased(num_particles: int) -> None:
    model, codes = inexact(), every(TOKENS, LEVELS)
    for x in codes[[5, 21]]:
        many = x.expand(8_000, -1)
        found = model.log_prob(many, num_particles=num_particles, generator=seeded())
        error = float(found.std()) / math.sqrt(len(found))
        assert abs(float(found.mean() - bound(model, x[None]))) < 4 * error
        assert error < 0.03 * abs(float(found.mean()))


def test_every_order_of_the_noise_is_a_mask_and_each_is_as_likely() -> None:
    """With the noise's orders enumerated the expectation is exact: no draw is left."""
    model, x = inexact(), torch.tensor([[0, 2, 1]])
    orders = torch.tensor(list(permutations(range(3)))).double() / 3
    with torch.no_grad():
        for n, mean in enumerate(by_size(model, x), start=1):
            nats = model.masked_nats(x.expand(6, -1), None, torch.full((6,), n), orders)
            torch.testing.assert_close(-nats.mean(), mean[0])
    assert mask_of(orders, torch.full((6,), 2)).sum(1).tolist() == [2] * 6


def test_particles_of_every_size_vary_less() -> None:
    model, x = inexact(), torch.tensor([[1, 1, 0]]).expand(4_000, -1)
    one, three = (model.log_prob(x, num_particles=k, generator=seeded()) for k in (1, 3))
    assert float(three.var()) < 0.8 * float(one.var()) / 3


# ------------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize(("shape", "levels"), SPACES)
def test_first_hitting_samples_have_the_distribution(shape: tuple[int, ...], levels: int) -> None:
    model, p = exact(shape, levels)
    samples = model.sample(30_000, generator=seeded())
    assert chi_square(samples, model, p) > 1e-3
    fewer = model.sample(30_000, steps=2, generator=seeded())  # the test sees what is not exact
    assert chi_square(fewer, model, p) < 1e-12


@pytest.mark.parametrize("sampler", ["first-hitting", "ancestral"])
def test_in_one_step_all_entries_are_drawn_apart(sampler: Any) -> None:
    model, p = exact()
    table = p.view(3, 3, 3)
    marginals = [table.sum([j for j in range(3) if j != i]) for i in range(3)]
    apart = torch.einsum("i,j,k->ijk", *marginals).flatten()
    assert chi_square(model.sample(30_000, sampler=sampler, steps=1, generator=seeded()), model, apart) > 1e-3


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ancestral_samples_converge_with_the_steps(schedule: Any) -> None:
    model, p = exact(schedule=schedule, sampler="ancestral")
    far = [total_variation(model.sample(20_000, steps=k, generator=seeded()), model, p) for k in (1, 4, 16)]
    assert far[0] > 0.3 and far[1] < 0.5 * far[0] and far[2] < 0.5 * far[1]
    assert chi_square(model.sample(5_000, steps=250, generator=seeded()), model, p) > 1e-3
    assert model.network_evaluations == 64


@pytest.mark.parametrize("steps", [1, 2, 4, 9])
def test_entries_are_filled_in_one_after_another_in_any_order(steps: int) -> None:
    masked = torch.tensor([[True] * 5, [True, False, True, False, True], [False] * 5])
    noise = torch.rand(3, 5, generator=seeded())
    turns = first_hitting_turns(masked, noise, steps)
    assert bool((turns[~masked] == -1).all())
    for row, there in zip(turns, masked, strict=True):
        sizes = row[there].bincount() if bool(there.any()) else torch.zeros(0)
        assert len(sizes) == min(steps, int(there.sum()))
        assert not len(sizes) or int(sizes.max() - sizes.min()) <= 1
    every_order = torch.tensor(list(permutations(range(3)))) / 3
    found = first_hitting_turns(torch.ones(6, 3, dtype=torch.bool), every_order, 3)
    assert sorted(map(tuple, found.tolist())) == sorted(permutations(range(3)))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ancestral_steps_fill_in_the_share_of_the_schedule(schedule: Any) -> None:
    noise = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    turns = ancestral_turns(torch.ones(1, 10_000, dtype=torch.bool), noise[None], 7, schedule)
    times = 1 - torch.arange(8, dtype=torch.float64) / 7
    torch.testing.assert_close(
        turns.flatten().bincount(minlength=7) / 10_000,
        -masked_share(schedule, times).diff().float(),
        rtol=0,
        atol=1.01e-4,
    )


class Sure(nn.Module):
    """Knows entry i with a probability that rises with i, whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.arange(1.0, 9))

    def forward(self, symbols: Tensor, labels: Tensor | None) -> Tensor:
        return torch.stack([10 + self.scale, torch.zeros(8)]).expand(len(symbols), -1, -1)


@pytest.mark.parametrize(("schedule", "left"), [("linear", [6, 4, 2, 0]), ("cosine", [7, 5, 3, 0])])
def test_the_surest_are_filled_in_first_and_as_many_as_the_schedule_says(schedule: Any, left: list[int]) -> None:
    model = MaskedDiffusion((8,), 2, network=Sure(), schedule=schedule, sampler="confidence", steps=4)
    model.choice_temperature = 0.0
    path = model.double().sample_path(3, num_frames=4, generator=seeded())
    assert path.shape == (4, 3, 8)
    nothing = torch.full((3, 8), model.mask)
    codes, turns = model.unmask(nothing, None, seeded(), "confidence", 4, most=8)
    assert [int((turns[0] > step).sum()) for step in range(4)] == left
    assert bool((turns.diff(dim=1) <= 0).all()) and bool((codes == 0).all())


@pytest.mark.parametrize("size", [3, 10, 49, 64])
def test_as_many_steps_as_entries_fill_in_one_each(size: int) -> None:
    model = MaskedDiffusion((size,), 2, width=8, depth=1, heads=1, sampler="confidence")
    _, turns = model.unmask(torch.full((1, size), model.mask), None, seeded(), "confidence", size, most=size)
    assert sorted(turns.flatten().tolist()) == list(range(size))


@pytest.mark.parametrize(("side", "patch"), [(28, 2), (64, 4), (128, 8), (144, 8), (256, 8), (29, 1), (62, 2)])
def test_an_image_is_cut_into_few_patches_none_of_them_large(side: int, patch: int) -> None:
    assert patch_of((3, side, side), None) == patch


@pytest.mark.parametrize("sampler", ["first-hitting", "ancestral", "confidence"])
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_the_network_runs_once_a_step(sampler: Any, steps: int) -> None:
    calls: list[int] = []
    model = inexact(sampler=sampler, steps=steps)
    model.network.register_forward_hook(lambda *_: calls.append(1))
    model.check(model.sample(5, generator=seeded()))
    assert len(calls) == model.network_evaluations == (steps if sampler == "ancestral" else min(3, steps))


# ---------------------------------------------------------------------------------------------------- completions


@pytest.mark.parametrize("known", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1)])
def test_completions_have_the_distribution_given_what_is_known_wherever_it_is(known: tuple[int, ...]) -> None:
    model, p = exact()
    x, mask = torch.tensor([[2, 0, 1]]), torch.tensor(known) > 0
    out = model.complete(x, mask, num_samples=20_000, generator=seeded()).squeeze(1)
    assert torch.equal(out[:, mask], x[:, mask].expand(20_000, -1))
    fits = (every(TOKENS, LEVELS) == x)[:, mask].all(1)
    given = torch.where(fits, p, 0) / p[fits].sum()
    assert chi_square(out, model, given) > 1e-3


@pytest.mark.parametrize("sampler", ["first-hitting", "ancestral", "confidence"])
def test_a_completion_of_each_datum_has_its_own_mask_and_does_not_depend_on_the_others(sampler: Any) -> None:
    model = inexact((6,), 4, sampler=sampler, steps=4)
    x = torch.randint(4, (5, 6), generator=seeded())
    known = torch.rand(5, 6, generator=seeded(3)) < torch.tensor([[0.0], [0.2], [0.5], [0.8], [1.0]])
    together = model.complete(x, known, generator=PerDatum(x))
    alone = [model.complete(x[i : i + 1], known[i : i + 1], generator=PerDatum(x[i : i + 1])) for i in range(5)]
    assert torch.equal(together, torch.cat(alone, 1))
    assert torch.equal(together[:, known], x[known][None])


# -------------------------------------------------------------------------------------------------------- classes


def of_classes(**options: Any) -> tuple[MaskedDiffusion, Tensor]:
    tables = torch.stack([peaked(TOKENS, LEVELS, seed) for seed in (1, 2)])
    network = Exact(TOKENS, LEVELS, *tables)
    model = MaskedDiffusion(TOKENS, LEVELS, network=network, num_classes=2, conditional=True, **options)
    return model.double().eval(), tables


def test_samples_and_completions_of_a_class() -> None:
    model, tables = of_classes()
    for y in range(2):
        labels = torch.full((20_000,), y)
        assert chi_square(model.sample(20_000, labels=labels, generator=seeded()), model, tables[y]) > 1e-3
    x, mask = torch.tensor([[2, 0, 1]]), torch.tensor([False, True, False])
    fits = every(TOKENS, LEVELS)[:, 1] == 0
    for labels, p in ((torch.tensor([1]), tables[1]), (None, tables.mean(0))):
        out = model.complete(x, mask, num_samples=20_000, labels=labels, generator=seeded()).squeeze(1)
        assert chi_square(out, model, torch.where(fits, p, 0) / p[fits].sum()) > 1e-3


def test_guidance_is_a_product_of_powers() -> None:
    model, tables = of_classes()
    symbols = torch.full((2, 3), model.mask)
    guided = model.logits(symbols, torch.tensor([0, 1]), guidance=2.5).softmax(1)
    marginal = torch.stack([t.view(3, 3, 3).sum((1, 2)) for t in (*tables, tables.mean(0))])
    for y in range(2):
        expected = marginal[y] ** 2.5 * marginal[2] ** -1.5
        torch.testing.assert_close(guided[y, :, 0], expected / expected.sum())
    strong = model.sample(20_000, labels=torch.zeros(20_000, dtype=torch.int64), guidance=4.0, generator=seeded())
    assert chi_square(strong, model, tables[0]) < 1e-12
    evaluations, model.guidance = model.network_evaluations, 4.0
    assert torch.equal(
        model.sample(20_000, labels=torch.zeros(20_000, dtype=torch.int64), generator=seeded()), strong
    )
    assert model.network_evaluations == 2 * evaluations
    frames = model.sample_path(50, num_frames=3, labels=torch.zeros(50, dtype=torch.int64), generator=seeded())
    first = model.sample(50, labels=torch.zeros(50, dtype=torch.int64), generator=seeded())
    assert torch.equal(frames[-1], first)
    assert MaskedDiffusion((3,), 2, width=8, depth=1, heads=1, guidance=2.0).guidance == 1.0  # without classes


def test_without_a_label_the_bound_is_that_of_the_mixture() -> None:
    model, tables = of_classes()
    model.count_classes(torch.tensor([0, 0, 0, 1]))
    true = (tables * torch.tensor([[0.75], [0.25]])).sum(0).log()
    codes = every(TOKENS, LEVELS)
    found = torch.stack([model.log_prob(codes, num_particles=30, generator=seeded(k)) for k in range(40)])
    error = found.std(0) / math.sqrt(len(found))
    assert bool((found.mean(0) < true + 4 * error).all())
    assert float((true - found.mean(0)).mean()) < 0.05


def test_training_hides_labels() -> None:
    given: list[Tensor] = []
    model, _ = of_classes(label_dropout=0.25)
    model.network.register_forward_hook(lambda _, inputs, output: given.append(inputs[1]))
    torch.manual_seed(0)
    labels = torch.arange(4_000) % 2
    model.objective(torch.zeros(4_000, 3, dtype=torch.int64), labels)
    hidden = given[0] == 2
    assert float(hidden.double().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(given[0][~hidden], labels[~hidden])


# ---------------------------------------------------------------------------------------------------------- others


def test_what_is_trained_comes_closer_to_the_distribution() -> None:
    p = peaked(TOKENS, LEVELS)
    torch.manual_seed(0)
    model = MaskedDiffusion(TOKENS, LEVELS, width=32, depth=2, heads=2, schedule="cosine")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    codes = every(TOKENS, LEVELS)

    def divergence() -> float:
        return float((p * (p.log() - bound(model, codes))).sum())

    assert divergence() > 1
    for _ in range(200):
        optimizer.zero_grad()
        model.objective(codes[torch.multinomial(p, 128, replacement=True)], None)["loss"].mean().backward()
        optimizer.step()
    assert 0 <= divergence() < 0.15


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shape": (2,), "levels": None}, "tokens .* and images"),
        ({"shape": (1, 40), "levels": 256}, "tokens .* and images"),
        ({"schedule": "quadratic"}, "schedule='quadratic'"),
        ({"sampler": "greedy"}, "sampler='greedy'"),
        ({"steps": 0}, "steps=0"),
        ({"label_dropout": 1.0}, "label_dropout=1.0"),
        ({"patch": 2}, "patch=2: tokens are not cut"),
        ({"shape": (1, 6, 9), "levels": 2, "patch": 2}, "patch=2: .* choose one of 1, 3"),
        ({"shape": (1, 6, 9), "levels": 2, "vocabulary": "ab"}, "vocabulary"),
        ({"vocabulary": "ab"}, "vocabulary has 2 tokens, but levels=5"),
        ({"width": 18}, "width=18"),
        ({"conditional": True}, "conditional=True"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MaskedDiffusion(**{"shape": (6,), "levels": 5} | options)


def test_a_network_of_another_shape_is_refused() -> None:
    class Wrong(nn.Module):
        def forward(self, symbols: Tensor, labels: Tensor | None) -> Tensor:
            return torch.zeros(len(symbols), 6, 5)

    model = MaskedDiffusion((6,), 5, network=Wrong())
    model.register_parameter("scale", nn.Parameter(torch.ones(())))
    with pytest.raises(ValueError, match="network must map symbols"):
        model.sample(2)


def test_it_reads_and_writes_text() -> None:
    model = MaskedDiffusion((4,), 3, vocabulary=" ab", width=8, depth=1, heads=1)
    assert model.text(model.tokens("ab a")) == "ab a"
    x = model.tokens(["ab a", "  bb"])
    assert model.text(x) == ["ab a", "  bb"]
    known = torch.tensor([True, False, False, True])
    (filled,) = model.complete(x, known)
    assert [text[0] + text[-1] for text in model.text(filled)] == ["aa", " b"]


def test_the_anomaly_score_is_the_bound_by_so_many_draws_of_the_datum_s_own() -> None:
    model = MaskedDiffusion((6,), 5, width=8, depth=1, heads=1).eval()
    x = torch.randint(5, (4, 6), generator=seeded())
    expected = -model.log_prob(x, num_particles=model.anomaly_particles, generator=PerDatum(x))
    assert torch.equal(model.anomaly_score(x), expected) and torch.equal(model.anomaly_score(x[2:3]), expected[2:3])
