"""The chain rule, on models small enough to enumerate everything that they could ever say."""

import itertools
import math
import struct
import zlib

import pytest
import torch

from genzoo.zoo import GPT, MADE, PixelCNN, WaveNet
from genzoo.zoo.autoregressive import base
from genzoo.zoo.autoregressive.base import AutoregressiveMixin, compressed_nats, raster_order
from genzoo.zoo.modality import from_codes, modality


def loud(family, shape, levels, scale=3.0, **options):
    """A model whose weights are large: its conditionals are far from uniform."""
    torch.manual_seed(0)
    model = family(shape, levels, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def everything(shape, levels):
    """(levels ** D, *shape): all data that there are, in the order of their digits."""
    codes = itertools.product(range(levels), repeat=math.prod(shape))
    return from_codes(torch.tensor(list(codes)).view(-1, *shape), levels, modality(shape, levels))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def agrees(draws, space, probability, num_sigmas=4.5):
    """Whether draws, (N, *shape), come from a distribution over `space`: every cell of its histogram."""
    matches = (draws.flatten(1)[:, None] == space.flatten(1)).all(2)
    assert bool(matches.any(1).all())
    probability = probability.double()
    counts, expected = matches.sum(0).double(), len(draws) * probability
    return bool(((counts - expected).abs() <= num_sigmas * (expected * (1 - probability)).sqrt() + 1).all())


MIXTURE = {"distribution": "logistic_mixture", "mixtures": 3}
SMALL = [
    (PixelCNN, (1, 2, 3), 2, {"channels": 8, "depth": 2}),
    (PixelCNN, (3, 1, 2), 2, {"channels": 9, "depth": 2}),
    (PixelCNN, (3, 1, 2), 2, {"channels": 9, "depth": 2, **MIXTURE}),
    (PixelCNN, (1, 2, 2), 4, {"channels": 8, "depth": 2, **MIXTURE}),
    (MADE, (1, 2, 3), 2, {"width": 20}),
    (MADE, (1, 2, 3), 2, {"width": 20, "order_seed": 1}),
    (MADE, (5,), 3, {"width": 20}),
]


@pytest.fixture(params=SMALL, ids=lambda p: f"{p[0].__name__}-{p[1]}-{p[2]}-{'order_seed' in p[3]}")
def small(request):
    family, shape, levels, options = request.param
    return loud(family, shape, levels, **options), everything(shape, levels)


@pytest.mark.parametrize(
    ("family", "shape", "levels", "options"),
    [
        (PixelCNN, (1, 3, 3), 2, {}),
        (PixelCNN, (3, 1, 3), 2, {"channels": 9}),
        (PixelCNN, (2, 2, 1), 4, {"channels": 8}),
        (PixelCNN, (3, 1, 2), 4, {"channels": 8, **MIXTURE}),
        (PixelCNN, (1, 2, 3), 4, {"channels": 8, **MIXTURE}),
        (PixelCNN, (1, 1, 2), 64, {"channels": 8}),
        (MADE, (1, 3, 3), 2, {}),
        (MADE, (1, 3, 3), 2, {"order_seed": 3, "depth": 1}),
        (MADE, (4,), 4, {}),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 2.0, 8.0])
def test_the_probabilities_of_all_there_is_sum_to_one(family, shape, levels, options, scale):
    model = loud(family, shape, levels, scale, **options)
    log_prob = model.log_prob(everything(shape, levels)).double()
    assert abs(float(log_prob.logsumexp(0).exp()) - 1) < 1e-5
    assert float(log_prob.std()) > 1e-3  # and it is not the uniform distribution that does


def test_samples_have_the_probabilities_that_log_prob_states(small):
    model, space = small
    draws = model.sample(4000, generator=seeded())
    assert agrees(draws, space, model.log_prob(space).exp())


def test_cached_and_uncached_sampling_draw_the_same(small):
    model, space = small
    codes = model.codes(space[torch.randint(len(space), (64,), generator=seeded(1))])
    known = torch.rand(codes.shape, generator=seeded(2)) < 0.4
    noise = torch.rand(codes.shape, generator=seeded(3))
    assert torch.equal(model.draw(codes, known, None, noise), model.draw_uncached(codes, known, None, noise))


def test_completions_of_a_suffix_have_the_conditional_distribution(small):
    model, space = small
    known = torch.zeros(model.num_dims, dtype=torch.bool)
    known[model.order[: model.num_dims // 2]] = True
    known = known.view(model.shape)
    assert model.completion_kind(known) == "exact"
    datum = space[len(space) // 3]
    fits = (space[:, known] == datum[known]).all(1)
    conditional = model.log_prob(space).exp() * fits
    draws = model.complete(datum[None], known, num_samples=4000, generator=seeded())[:, 0]
    assert agrees(draws, space, conditional / conditional.sum())


def test_completions_of_other_masks_follow_what_is_earlier_and_are_said_to_be_approximate(small):
    """Known x_last, all else unknown: the completions are samples of p(x_<last), as the documentation says."""
    model, space = small
    known = torch.zeros(model.num_dims, dtype=torch.bool)
    known[model.order[-1]] = True
    known = known.view(model.shape)
    assert model.completion_kind(known) == "approximate"
    datum = space[len(space) // 3]
    fits = (space[:, known] == datum[known]).all(1)
    level = model.codes(space)[:, known].squeeze(1)
    joint = torch.zeros(len(space) // model.levels, model.levels)
    rest = model.codes(space)[:, ~known] @ model.levels ** torch.arange(model.num_dims - 1)
    joint[rest, level] = model.log_prob(space).exp()
    expected = torch.where(fits, joint.sum(1)[rest], 0.0)
    draws = model.complete(datum[None], known, num_samples=4000, generator=seeded())[:, 0]
    assert agrees(draws, space, expected)


MODELS = {
    "made": lambda: MADE((1, 3, 3), 3, width=30),
    "pixelcnn": lambda: PixelCNN((1, 5, 4), 3, channels=8, depth=2),
    "mixture": lambda: PixelCNN((3, 4, 3), 64, channels=8, depth=2),
    "conditional": lambda: PixelCNN((1, 5, 4), 3, channels=8, depth=2, num_classes=3, conditional=True),
    "gpt": lambda: GPT((9,), 5, width=8, depth=1, heads=2),
    "wavenet": lambda: WaveNet((1, 20), 8, channels=8, skip_channels=8, dilations=(1, 2, 4)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("at_once", [1, 3, 10, 100])
def test_a_likelihood_is_evaluated_of_few_data_at_once_and_says_the_same(name, at_once, monkeypatch):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    x = model.sample(10, generator=seeded())
    labels = torch.arange(10) % 3 if model.num_classes else None
    alone = torch.cat(
        [
            model.log_likelihood(x[i : i + 1], None if labels is None else labels[i : i + 1]).detach()
            for i in range(10)
        ]
    )
    marginal = torch.cat([model.log_prob(x[i : i + 1]) for i in range(10)])
    asked, log_likelihood = [], model.log_likelihood
    monkeypatch.setattr(model, "log_likelihood", lambda *a: asked.append(len(a[0])) or log_likelihood(*a))
    monkeypatch.setattr(base, "CACHED", model.widest * (at_once + 1) - 1)
    torch.testing.assert_close(model.log_prob(x, labels=labels), alone)
    assert sum(asked) == 10 and max(asked) <= at_once and len(asked) == math.ceil(10 / at_once)
    torch.testing.assert_close(model.log_prob(x), marginal)


@pytest.mark.parametrize("name", MODELS)
def test_the_widest_layer_is_the_widest(name):
    """Nothing that a module returns has more numbers for a datum."""
    model, sizes = MODELS[name]().eval(), []
    for module in model.modules():
        module.register_forward_hook(lambda _, __, out: sizes.append(out.numel()) if torch.is_tensor(out) else None)
    x = model.sample(1, generator=seeded())
    sizes.clear()
    model.log_prob_per_dim(x, torch.zeros(1, dtype=torch.long) if model.num_classes else None)
    assert max(sizes) <= model.widest <= 2 * max(sizes)


def test_each_row_of_a_batch_has_its_own_mask():
    model = loud(PixelCNN, (1, 3, 3), 2, channels=8, depth=1)
    x = model.sample(6, generator=seeded())
    known = torch.rand(x.shape, generator=seeded(1)) < 0.5
    together = model.complete(x, known, num_samples=2, generator=seeded(2))
    assert torch.equal(together[:, known], x[known].expand(2, -1))
    assert model.completion_kind(known) == "approximate"
    assert model.completion_kind(torch.tensor([[[True], [True], [False]]])) == "exact"
    assert model.completion_kind(torch.tensor([True, True, False])) == "approximate"  # in each row


@pytest.fixture(scope="module")
def conditional():
    return loud(PixelCNN, (1, 2, 3), 2, channels=8, depth=2, num_classes=3, conditional=True)


def test_a_conditional_model_is_a_mixture_over_its_classes(conditional):
    space = everything((1, 2, 3), 2)
    given = torch.stack([conditional.log_prob(space, labels=torch.full((64,), y)).exp() for y in range(3)])
    torch.testing.assert_close(given.sum(1), torch.ones(3))
    torch.testing.assert_close(conditional.log_prob(space).exp(), given.mean(0))
    assert float((given[0] - given[1]).abs().max()) > 1e-2  # the class matters
    for y in range(3):
        draws = conditional.sample(2000, labels=torch.full((2000,), y), generator=seeded())
        assert agrees(draws, space, given[y])
    assert agrees(conditional.sample(4000, generator=seeded()), space, given.mean(0))


def test_the_marginal_takes_the_classes_by_their_shares_in_the_training_data():
    """In likelihoods, samples and completions; a class that was never seen takes no part in any of them."""
    model = loud(PixelCNN, (1, 2, 3), 2, channels=8, depth=2, num_classes=3, conditional=True)
    model.count_classes(torch.tensor([2, 0, 2, 2]))
    space = everything((1, 2, 3), 2)
    given = torch.stack([model.log_prob(space, labels=torch.full((64,), y)).exp() for y in range(3)])
    joint = 0.25 * given[0] + 0.75 * given[2]
    torch.testing.assert_close(model.log_prob(space).exp(), joint)
    assert float((joint - given.mean(0)).abs().max()) > 1e-2
    assert agrees(model.sample(4000, generator=seeded()), space, joint)
    known = torch.tensor([[[True, True, True], [True, False, False]]])
    fits = (space[:, known] == space[20][known]).all(1)
    draws = model.complete(space[20][None], known, num_samples=4000, generator=seeded())[:, 0]
    assert agrees(draws, space, joint * fits / (joint * fits).sum())


def test_completions_of_a_conditional_model_infer_the_class_from_what_is_known(conditional):
    space = everything((1, 2, 3), 2)
    known = torch.tensor([[[True, True, True], [True, False, False]]])
    datum = space[20]
    joint = conditional.log_prob(space).exp() * (space[:, known] == datum[known]).all(1)
    draws = conditional.complete(datum[None], known, num_samples=4000, generator=seeded())[:, 0]
    assert agrees(draws, space, joint / joint.sum())


@pytest.mark.parametrize("label", range(3))
def test_completions_given_the_class_are_drawn_given_it(conditional, label):
    space = everything((1, 2, 3), 2)
    known = torch.tensor([[[True, True, True], [True, False, False]]])
    x, labels = space[[20, 20]], torch.tensor([label, (label + 1) % 3])
    draws = conditional.complete(x, known, num_samples=4000, labels=labels, generator=seeded())
    for place, y in enumerate(labels.tolist()):
        joint = conditional.log_prob(space, labels=torch.full((64,), y)).exp()
        joint = joint * (space[:, known] == space[20][known]).all(1)
        assert agrees(draws[:, place], space, joint / joint.sum())


def test_labels_are_asked_for_and_checked(conditional):
    x = everything((1, 2, 3), 2)[:2]
    with pytest.raises(ValueError, match="is conditional"):
        conditional.objective(x, None)
    with pytest.raises(ValueError, match=r"labels lie in \[0, 3\)"):
        conditional.log_prob(x, labels=torch.tensor([0, 3]))
    with pytest.raises(TypeError, match="int64"):
        conditional.sample(2, labels=torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="takes none"):
        PixelCNN((1, 2, 3), 2, num_classes=3).sample(2, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="num_classes=None"):
        PixelCNN((1, 2, 3), 2, conditional=True)
    quantities = conditional.evaluation(x, torch.tensor([0, 1]), seeded())
    torch.testing.assert_close(quantities["nll"], -conditional.log_prob(x))
    torch.testing.assert_close(quantities["conditional_nll"], conditional.objective(x, torch.tensor([0, 1]))["loss"])


def test_the_path_of_a_sample_shows_its_dimensions_in_their_order_and_ends_with_the_sample():
    model = loud(PixelCNN, (3, 2, 4), 4, channels=9, depth=1)
    path = model.sample_path(2, num_frames=24, generator=seeded())
    x = model.sample(2, generator=seeded())
    assert torch.equal(path[-1], x)
    for k, place in enumerate(raster_order((3, 2, 4)).tolist()):
        colour, row, column = place // 8, place // 4 % 2, place % 4
        assert (colour, row, column) == (k % 3, k // 12, k // 3 % 4)  # R, G, B, then the next pixel
        assert torch.equal(path[k, :, colour, row, column], x[:, colour, row, column])
        assert int((path[k] != 0).sum()) <= 2 * (k + 1)
    assert model.sample_path(2, num_frames=5, generator=seeded()).shape == (5, 2, 3, 2, 4)
    assert model.network_evaluations == 24
    with pytest.raises(ValueError, match="num_frames=0"):
        model.sample_path(2, num_frames=0)


def test_choice_inverts_the_distribution_function():
    model = PixelCNN((1, 2, 2), 4)
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(1000, 4)
    chosen = AutoregressiveMixin.choose(model, logits, (torch.arange(1000) + 0.5) / 1000)
    assert chosen.bincount().tolist() == [100, 200, 300, 400]
    certain = torch.tensor([[0.0, -math.inf, -math.inf], [-math.inf, -math.inf, 0.0]])
    assert model.choose(certain, torch.tensor([1 - 2**-24, 0.0])).tolist() == [0, 2]


def test_what_has_no_probability_is_not_chosen_where_rounding_loses_some():
    """The sum of probabilities in single precision may fall short of 1, and the noise fall in between."""
    logits = torch.randn(4000, 60, generator=seeded())
    logits[:, 50:] = -torch.inf
    short = logits.softmax(1).cumsum(1)[:, -1] <= 1 - 2**-24
    assert bool(short.any())
    almost_one = torch.full((4000,), 1 - 2**-24)
    assert int(PixelCNN((1, 2, 2), 60).choose(logits, almost_one).max()) == 49
    mixture = torch.cat([logits, torch.zeros(4000, 120)], 1)  # logits, means and log-scales of 60 components
    assert bool(MADE((1,), None, mixtures=60).choose(mixture.unsqueeze(2), almost_one[:, None]).isfinite().all())


def test_the_complexity_score_is_the_likelihood_less_the_length_of_a_universal_code():
    model = PixelCNN((1, 8, 8), 17).eval()
    blank, noisy = torch.zeros(1, 1, 8, 8), torch.randint(17, (1, 1, 8, 8), generator=seeded()) / 16
    x = torch.cat([blank, noisy])
    code = model.anomaly_score(x, scorer="nll") - model.anomaly_score(x)
    torch.testing.assert_close(model.anomaly_score(x, scorer="nll"), -model.log_prob(x))
    bytes_ = [len(zlib.compress(bytes(row), 9)) for row in (x * 16).round().int().flatten(1).tolist()]
    torch.testing.assert_close(code / math.log(2) / 8, torch.tensor(bytes_).float(), atol=1e-3, rtol=0)
    assert bytes_[0] < 13 < 31 < bytes_[1]  # a blank image is short to tell; noise is log2(17) · 64 / 8 = 33
    with pytest.raises(ValueError, match="scorer='magic'"):
        model.anomaly_score(x, scorer="magic")


def test_a_universal_code_is_of_what_is_observed_and_of_any_number_of_levels():
    codes = torch.tensor([[3, 300, 7, 0, 0]])
    observed = torch.tensor([[True, True, True, False, False]])
    for levels, written in ((256, bytes([3, 300 % 256, 7])), (400, struct.pack("<3i", 3, 300, 7))):
        nats = compressed_nats(codes % levels, levels, observed)
        assert nats.tolist() == [8 * math.log(2) * len(zlib.compress(written, 9))]
