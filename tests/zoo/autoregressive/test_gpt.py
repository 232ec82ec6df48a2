"""GPT: causal to the last bit, a distribution over texts, and the same with the cache as without."""

import copy
import itertools
import json
import math
import random

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from genzoo.callbacks import SampleLogger
from genzoo.zoo import GPT
from genzoo.zoo import vocabulary as module
from genzoo.zoo.autoregressive.gpt import truncated
from genzoo.zoo.networks.attention import rotate, rotations
from genzoo.zoo.networks.transformer import KeyValueCache, Transformer
from genzoo.zoo.vocabulary import BytePairs, Bytes, Characters, vocabulary


def gpt(length=12, levels=5, scale=3.0, **sizes):
    """A GPT whose predictions are far from uniform."""
    torch.manual_seed(0)
    model = GPT((length,), levels, **{"width": 16, "depth": 2, "heads": 2} | sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------- the transformer


@pytest.mark.parametrize("training", [True, False])
def test_a_position_depends_on_itself_and_those_before_and_on_nothing_else(training):
    torch.manual_seed(0)
    network = Transformer(8, 2, 2, max_length=6).train(training)
    h, weights = torch.randn(1, 6, 8), torch.randn(8)
    if training:
        jacobian = torch.autograd.functional.jacobian(lambda x: (network(x) @ weights)[0], h)[:, 0].abs().sum(-1)
        assert bool((jacobian.triu(1) == 0).all())
        assert int((jacobian.tril() > 0).sum()) == 21
    with torch.no_grad():
        before = network(h)
        for i in range(6):
            after = network(h.index_add(1, torch.tensor([i]), torch.randn(1, 1, 8)))
            assert torch.equal(after[:, :i], before[:, :i])
            assert bool((after[:, i:] != before[:, i:]).any(-1).all())


def test_rotated_products_depend_on_the_distance_alone():
    cos, sin = rotations(20, 6)
    q, k = torch.randn(1, 6).expand(20, 6), torch.randn(1, 6).expand(20, 6)
    products = rotate(q, cos, sin) @ rotate(k, cos, sin).T
    for distance in range(-10, 11):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotate(q, cos, sin).norm(dim=1), q.norm(dim=1))
    first = torch.view_as_complex(torch.stack([q[:, 0], q[:, 3]], 1).contiguous())
    turned = first * torch.polar(torch.ones(20), torch.arange(20.0))  # the first pair turns by one radian a position
    torch.testing.assert_close(rotate(q, cos, sin)[:, [0, 3]], torch.view_as_real(turned), atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunks", [[9], [1] * 9, [5, 1, 1, 1, 1], [2, 4, 3], [1, 8]], ids=str)
def test_the_cache_goes_on_as_if_all_were_read_at_once(chunks):
    torch.manual_seed(0)
    network = Transformer(16, 3, 2, max_length=9).eval()
    h = 3 * torch.randn(4, 9, 16)
    with torch.no_grad():
        cache = KeyValueCache(network, 4, h)
        parts = [network(chunk, cache) for chunk in h.split(chunks, 1)]
        assert cache.length == 9
        torch.testing.assert_close(torch.cat(parts, 1), network(h), atol=1e-5, rtol=1e-5)
        with pytest.raises(ValueError, match=r"10 positions .* max_length=9"):
            network(h[:, :1], cache)


# ------------------------------------------------------------------------------------------------------- the model


def test_the_probabilities_of_all_texts_sum_to_one():
    model = gpt(4, 3)
    texts = torch.tensor(list(itertools.product(range(3), repeat=4)))
    total = model.log_prob(texts).double().exp()
    torch.testing.assert_close(total.sum(), torch.tensor(1.0, dtype=torch.float64), atol=1e-5, rtol=0)
    assert total.max() > 3 * total.min()


def test_the_logits_of_a_token_do_not_see_it_nor_what_comes_after():
    model = gpt()
    x = torch.randint(5, (3, 12))
    with torch.no_grad():
        logits = model.logits(x, None)
        assert logits.shape == (3, 5, 12)
        for i in range(12):
            changed = x.clone()
            changed[:, i] = (x[:, i] + 1) % 5
            other = model.logits(changed, None)
            assert torch.equal(other[..., : i + 1], logits[..., : i + 1])
            assert bool((other[..., i + 1 :] != logits[..., i + 1 :]).any(1).any(0).all())
    per_token = -F.cross_entropy(model.logits(x, None), x, reduction="none")
    torch.testing.assert_close(model.log_prob_per_dim(x, None), per_token)


def test_training_and_evaluation_are_in_nats_of_the_whole_text():
    model, x = gpt(), torch.randint(5, (3, 12))
    torch.testing.assert_close(model.objective(x, None)["loss"], -model.log_prob(x))
    torch.testing.assert_close(model.evaluation(x, None, None)["nll"], -model.log_prob(x))
    untrained = GPT((12,), 5)
    assert abs(float(-untrained.log_prob(x).mean()) - 12 * math.log(5)) < 0.5


def test_dropout_is_for_training_alone():
    model, x = gpt(dropout=0.5), torch.randint(5, (3, 12))
    assert torch.equal(model.log_prob(x), model.log_prob(x))
    torch.manual_seed(0)
    first = model.train().objective(x, None)["loss"]
    assert not torch.equal(first, model.objective(x, None)["loss"])


# ---------------------------------------------------------------------------------------------------------- samples


def test_cached_samples_are_those_of_the_whole_network():
    model = gpt()
    codes, noise = torch.randint(5, (6, 12)), torch.rand(6, 12)
    for known in (torch.zeros(6, 12), torch.arange(12).expand(6, 12) < 7, torch.rand(6, 12) < 0.5):
        known = known.bool()
        drawn = model.draw(codes, known, None, noise)
        assert torch.equal(drawn, model.draw_uncached(codes, known, None, noise))
        assert torch.equal(drawn[known], codes[known])


def test_samples_have_the_frequencies_that_the_likelihood_says():
    model = gpt(3, 3)
    drawn = model.sample(4000, generator=seeded())
    texts = torch.tensor(list(itertools.product(range(3), repeat=3)))
    p = model.log_prob(texts).exp()
    share = (drawn[:, None] == texts).all(2).double().mean(0)
    assert bool(((share - p).abs() < 5 * (p * (1 - p) / 4000).sqrt() + 1e-9).all())


def test_a_completed_text_follows_the_conditional_that_enumeration_gives():
    model = gpt(4, 3)
    x = torch.tensor([[2, 0, 0, 0], [1, 1, 0, 0]])
    known = torch.tensor([True, True, False, False])
    assert model.completion_kind(known) == "exact"
    assert model.completion_kind(known.flip(0)) == "approximate"
    out = model.complete(x, known, num_samples=3000, generator=seeded())
    ends = torch.tensor(list(itertools.product(range(3), repeat=2)))
    for i in range(2):
        p = model.log_prob(torch.cat([x[i, :2].expand(9, 2), ends], 1)).softmax(0)
        share = (out[:, i, None, 2:] == ends).all(2).double().mean(0)
        assert bool(((share - p).abs() < 5 * (p * (1 - p) / 3000).sqrt() + 1e-9).all())


def test_long_samples_slide_their_view():
    """Beyond T tokens each is drawn given the last T // 2 to T − 1, as if the text began with them."""
    model, noise = gpt(), torch.rand(2, 40)
    start = torch.randint(5, (2, 3))
    known = (torch.arange(40) < 3).expand(2, 40)
    tokens = model.generate(F.pad(start, (0, 37)), known, noise)
    assert torch.equal(tokens[:, :3], start)
    begin = 0
    for i in range(3, 40):
        if i - begin == 12:
            begin = i - 6
        view = F.pad(tokens[:, begin:i], (0, 12 - i + begin))
        expected = model.choose(model.logits(view, None)[..., i - begin], noise[:, i])
        assert torch.equal(tokens[:, i], expected)


def test_prompts_and_lengths():
    model = gpt(levels=3)
    model.vocabulary = Characters("abc")
    out = model.sample(3, prompt="abca", generator=seeded())
    assert out.shape == (3, 12)
    assert [model.text(row)[:4] for row in out] == ["abca"] * 3
    assert torch.equal(out, model.sample(3, prompt=torch.tensor([0, 1, 2, 0]), generator=seeded()))
    assert torch.equal(out, model.sample(3, prompt=[0, 1, 2, 0], generator=seeded()))
    assert model.sample(2, length=5).shape == (2, 5)
    long = model.sample(1, prompt="abc" * 7, generator=seeded())  # longer than what is in view
    assert long.shape == (1, 33) and model.text(long[0]).startswith("abc" * 7)


def test_the_surprisal_of_a_long_text_counts_each_token_once():
    model, text = gpt(), torch.randint(5, (41,))
    afresh = model.surprisal(text, stride=12, batch_size=2)
    windows = F.pad(text, (0, 7)).view(4, 12)
    torch.testing.assert_close(afresh, -model.log_prob_per_dim(windows, None).flatten()[:41])
    for stride in (1, 5, 6):
        nats = model.surprisal(text, stride=stride)
        assert nats.shape == (41,)
        for i in (0, 11, 12, 17, 29, 40):
            begin = 0 if i < 12 else math.ceil((i - 11) / stride) * stride
            view = F.pad(text[begin : begin + 12], (0, max(0, begin + 12 - 41)))
            torch.testing.assert_close(nats[i], -model.log_prob_per_dim(view[None], None)[0, i - begin])
    assert model.surprisal(text[:5]).shape == (5,)


# --------------------------------------------------------------------------------------------- texts of any length


def one_at_a_time(model, text, stride):
    """log p of each token, asked for by itself: given exactly what the first window that holds it has before it."""
    context = model.shape[0]
    begins = [0 if i < context else math.ceil((i - context + 1) / stride) * stride for i in range(len(text))]
    found = torch.empty(len(text), dtype=torch.float64)
    for length in range(context):  # those that are given as many, in one call
        places = [i for i, begin in enumerate(begins) if i - begin == length]
        if places:
            before = torch.stack([F.pad(text[begins[i] : i], (1, 0), value=model.start) for i in places])
            with torch.no_grad():
                last = model.next_logits(before)[:, -1].log_softmax(1)
            found[places] = last.gather(1, text[places, None])[:, 0]
    return found


@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 383, 384, 385, 10_000])
def test_a_text_of_any_length_is_the_sum_of_its_single_conditionals(length):
    model = gpt(256, 5, width=4, depth=1, heads=1).double()
    text = torch.randint(5, (length,), generator=seeded())
    expected = one_at_a_time(model, text, 128)
    (nats,) = model.log_prob(text[None])
    assert abs(float(nats - expected.sum())) < 1e-4
    torch.testing.assert_close(model.log_prob_per_dim(text[None], None)[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.float().log_prob(text[None])[0].double(), expected.sum(), atol=0, rtol=1e-5)
    assert model.bits_per_dim(text[None]).item() == pytest.approx(-float(nats) / length / math.log(2), rel=1e-4)


def test_every_later_token_has_at_least_half_a_view_before_it():
    model = gpt(12, 5)
    text = torch.randint(5, (1, 40), generator=seeded())
    nats = model.log_prob_per_dim(text, None)
    for i in range(12, 40):
        near = text.clone()
        near[0, : i - 6] = (near[0, : i - 6] + 1) % 5
        far = torch.equal(model.log_prob_per_dim(near, None)[0, i], nats[0, i])
        assert far == ((i - 12) % 6 == 0)  # the first of a window's new tokens has six before it, the next ones more
        near[0, i - 6] = (near[0, i - 6] + 1) % 5
        assert not torch.equal(model.log_prob_per_dim(near, None)[0, i], nats[0, i])


def test_padding_is_no_token_and_texts_may_be_strings():
    model = gpt(6, 4, vocabulary=" abc")
    texts = ["a", "abc abc abc cab", "cab ba"]
    batch = model.tokens(texts)
    assert batch.shape == (3, 15) and batch[0].tolist() == [1] + [-1] * 14
    for method in (model.log_prob, model.anomaly_score, model.bits_per_dim):
        alone = torch.cat([method(model.tokens(text)[None]) for text in texts])
        torch.testing.assert_close(method(batch), alone, atol=1e-5, rtol=1e-5)
        assert torch.equal(method(texts), method(batch))
        assert torch.equal(method(texts[1]), method([texts[1]]))
    assert model.num_observed(texts).tolist() == [1, 15, 6]
    assert model.text(batch) == texts and model.text(batch[1]) == texts[1]
    with_gap = batch.clone()
    with_gap[1, 3] = -1
    for wrong, message in ((with_gap, "padding"), (F.pad(batch[:, :0], (0, 3), value=-1), "a text without a token")):
        with pytest.raises(ValueError, match=message):
            model.log_prob(wrong)
    for empty in (["abc", ""], "", batch[:, :0]):
        with pytest.raises(ValueError, match="a text without a token"):
            model.log_prob(empty)
    with pytest.raises(ValueError, match="'x'"):
        model.log_prob(["abc", "axb"])
    with pytest.raises(TypeError, match="a string, or a list of strings"):
        model.log_prob([["a"]])
    with pytest.raises(ValueError, match="without a vocabulary"):
        gpt().log_prob("abc")


def test_a_padded_text_is_written_without_its_padding():
    model = GPT((6,), 4, vocabulary="abcd", width=8, depth=1, heads=1)
    padded = pad_sequence([torch.tensor([0, 1]), torch.tensor([3, 2, 1, 0])], batch_first=True, padding_value=-1)
    assert model.text(padded) == ["ab", "dcba"] == [model.text(row) for row in padded]
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        model.text(torch.tensor([0, -1, 1]))


def test_pictures_of_padded_texts_do_not_end_a_training(tmp_path):
    texts = pad_sequence([torch.arange(1 + k % 6) % 4 for k in range(8)], batch_first=True, padding_value=-1)
    model = GPT((6,), 4, vocabulary="abcd", width=8, depth=1, heads=1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    run = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[SampleLogger(num_samples=2)], **quiet)
    run.fit(model, DataLoader(texts, batch_size=8), DataLoader(texts, batch_size=8))
    (written,) = tmp_path.rglob("completions-*.txt")
    pages = [part for part in written.read_text().splitlines() if set(part) <= set("abcd") and part]
    assert len(pages) == 16 and pages[0] == "a" and pages[10] == "abcdab" and pages[11].startswith("abc")


def test_a_training_takes_padding_and_no_more_than_it_sees():
    model = gpt(6, 4, vocabulary=" abc")
    texts = ["a", "cab ba", "bab"]
    loss = model.objective(model.unpack(model.tokens(texts), "train")[0], None)["loss"]
    alone = torch.cat([model.objective(model.tokens([text]), None)["loss"] for text in texts])
    torch.testing.assert_close(loss, alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"shape=\(6,\), the tokens that it sees at once, .* texts of 7"):
        model.unpack(model.tokens(["a", "cab bac"]), "train")


@pytest.mark.parametrize("length", [3, 8])
def test_texts_of_any_length_are_completed_as_of_the_class_that_they_show(length):
    """Of a model of five tokens; against the mixture over the classes of all texts that begin so."""
    model = gpt(5, 3, num_classes=2, conditional=True)
    begun = torch.randint(3, (1, length - 1), generator=seeded())
    space = torch.cat([begun.expand(3, -1), torch.arange(3)[:, None]], 1)
    expected = model.log_prob(space).softmax(0)
    x = torch.cat([begun, torch.zeros(1, 1, dtype=torch.long)], 1)
    known = torch.arange(length) < length - 1
    draws = model.complete(x, known, num_samples=4000, generator=seeded())[:, 0, -1]
    found = draws.bincount(minlength=3) / 4000
    assert (found - expected).abs().max() < 0.03
    given = torch.stack([model.log_prob(space, labels=torch.full((3,), y)).softmax(0) for y in range(2)])
    assert (given[0] - given[1]).abs().max() > 0.1  # the class matters


def test_texts_of_any_length_are_completed():
    model = gpt(6, 4, vocabulary=" abc")
    x = model.tokens(["abc abc abc cab", "cab"])
    known = torch.arange(15) < 2
    out = model.complete(model.tokens(["abc abc abc cab"]), known, num_samples=2, generator=seeded())
    assert out.shape == (2, 1, 15) and [text[:2] for text in model.text(out[:, 0])] == ["ab", "ab"]
    assert torch.equal(model.complete("abc", torch.tensor(True)), x[None, :1, :3])
    with pytest.raises(ValueError, match="padding"):
        model.complete(x, torch.tensor([True] * 4 + [False] * 11))


def test_a_prompt_for_each_text():
    model = gpt(12, 4, vocabulary=" abc")
    prompts = ["abca", "", "cab abc"]
    together = model.sample(3, prompt=prompts, generator=seeded())
    assert together.shape == (3, 12) and int(together.min()) >= 0
    assert [text.startswith(prompt) for text, prompt in zip(model.text(together), prompts, strict=True)] == [True] * 3
    noise = model.noise(together.shape, seeded())
    for row, prompt in enumerate(prompts):
        given = F.pad(model.tokens(prompt), (0, 12 - len(prompt)))[None]
        known = (torch.arange(12) < len(prompt))[None]
        assert torch.equal(model.draw_uncached(given, known, None, noise[row : row + 1])[0], together[row])
    assert model.sample(2, prompt=["abc" * 7, "a"]).shape == (2, 33)
    with pytest.raises(ValueError, match=r"prompt: 3 were given for num_samples=2"):
        model.sample(2, prompt=prompts)


# ----------------------------------------------------------------------------------------------------- truncation


def test_top_k_keeps_exactly_k_under_ties():
    kept = truncated(torch.zeros(2, 7), top_k=3)
    assert torch.equal(kept.isfinite(), torch.tensor([[True] * 3 + [False] * 4]).expand(2, 7))
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.0, 2.0]])
    assert truncated(logits, top_k=1).isfinite().nonzero().tolist() == [[0, 1]]
    assert truncated(logits, top_k=3).isfinite().nonzero()[:, 1].tolist() == [1, 3, 4]
    assert torch.equal(truncated(logits, top_k=99), logits.double())


def test_top_p_keeps_the_fewest_that_reach_p():
    p = torch.tensor([[0.125, 0.5, 0.25, 0.125]])
    for threshold, kept in ((0.3, [1]), (0.49, [1]), (0.51, [1, 2]), (0.76, [0, 1, 2]), (0.88, [0, 1, 2, 3])):
        assert truncated(p.log(), top_p=threshold).isfinite().nonzero()[:, 1].tolist() == kept
    assert truncated(p.log(), top_p=1e-9).isfinite().sum() == 1
    # of the k likeliest, renormalised: 0.5 and 0.25 become 2/3 and 1/3
    assert truncated(p.log(), top_k=2, top_p=0.6).isfinite().nonzero()[:, 1].tolist() == [1]


def test_temperature_divides_and_zero_takes_the_likeliest():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    torch.testing.assert_close(truncated(logits, temperature=0.5), 2 * logits.double())
    model = gpt()
    greedy = model.sample(2, temperature=0, generator=seeded())
    for cold in (0, 5e-324, 1e-310, 1e-300, 1e-250, 1e-200):
        assert torch.equal(greedy, model.sample(2, temperature=cold, generator=seeded(1)))
    with torch.no_grad():
        assert torch.equal(greedy, model.logits(greedy, None).argmax(1))


def test_what_is_cut_off_is_never_drawn():
    model = gpt()
    last = torch.full((1000,), 1 - 2**-24)  # the highest uniform number there is
    logits = truncated(torch.randn(1000, 5, generator=seeded()), top_k=2)
    drawn = model.choose(logits, last)
    assert bool(logits.gather(1, drawn[:, None]).isfinite().all())


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"length": 0}, "length=0: give a whole number of at least 1"),
        ({"prompt": [1, 9]}, r"int64 in \[0, 5\).*\[1, 9\]"),
        ({"prompt": [0.5]}, "float32"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"prompt": torch.tensor([1, 9])}, r"int64 in \[0, 5\).*\[1, 9\]"),
        ({"prompt": torch.tensor([1.0])}, "float32"),
        ({"prompt": "text"}, "without a vocabulary"),
        ({"prompt": torch.tensor([1, 2]), "length": 2}, "nothing is left to write"),
        ({"labels": torch.tensor([1])}, "unconditional"),
    ],
)
def test_what_cannot_be_sampled(options, message):
    with pytest.raises(ValueError, match=message):
        gpt().sample(1, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (1, 8, 8), "levels": 2}, "GPT models tokens"),
        ({"shape": (8,), "levels": None}, "GPT models tokens"),
        ({"shape": (8,), "levels": 5, "width": 18, "heads": 2}, "multiple of 2 × heads"),
        ({"shape": (8,), "levels": 5, "depth": 0}, "depth=0"),
        ({"shape": (8,), "levels": 5, "dropout": 1.0}, "dropout=1.0"),
        ({"shape": (8,), "levels": 5, "vocabulary": "abc"}, "3 tokens, but levels=5"),
        ({"shape": (8,), "levels": 5, "vocabulary": "cba"}, "states no vocabulary"),
    ],
)
def test_what_cannot_be_built(arguments, message):
    with pytest.raises(ValueError, match=message):
        GPT(**arguments)


def test_a_conditional_model_has_no_surprisal():
    """A long text has no class; and the method of a copy is the copy's own."""
    assert not hasattr(GPT((8,), 5, num_classes=2, conditional=True, width=8, depth=1, heads=2), "surprisal")
    model, text = gpt(), torch.arange(30) % 5
    copied, before = copy.deepcopy(model), model.surprisal(text)
    torch.nn.init.zeros_(copied.embedding.weight)
    torch.testing.assert_close(copied.surprisal(text), torch.full((30,), math.log(5)))
    assert torch.equal(model.surprisal(text), before)


def test_a_stride_that_leaves_gaps():
    with pytest.raises(ValueError, match="stride=13"):
        gpt().surprisal(torch.zeros(30, dtype=torch.long), stride=13)


@pytest.mark.parametrize(
    "tokens", [torch.full((30,), 5), torch.full((30,), -1), torch.zeros(30), torch.zeros(2, 15).long()]
)
def test_a_long_text_of_other_tokens(tokens):
    with pytest.raises(ValueError, match=r"A long text is \(N,\) tokens, int64 in \[0, 5\), but was"):
        gpt().surprisal(tokens)


# ------------------------------------------------------------------------------------------------------ vocabularies

TEXT = "def f(naïve):\n\treturn 'こんにちは 🐍'\r\n\n" * 3


@pytest.mark.parametrize("kind", ["characters", "bytes", "byte pairs"])
def test_text_comes_back_from_its_tokens_and_a_vocabulary_from_its_statement(kind):
    known = {"characters": Characters.of(TEXT), "bytes": Bytes(), "byte pairs": BytePairs.of(TEXT, 300)}[kind]
    tokens = known.encode(TEXT)
    assert tokens.dtype.name == "int32" and 0 <= tokens.min() <= tokens.max() < len(known)
    assert known.decode(tokens.tolist()) == TEXT
    again = vocabulary(known.statement)
    assert type(again) is type(known) and len(again) == len(known)
    assert again.encode(TEXT).tolist() == tokens.tolist()
    assert known.encode("").tolist() == [] and known.decode([]) == ""


def test_byte_pairs_know_every_text_and_shorten_what_is_frequent():
    known = BytePairs.of("the cat and the dog and the bird\n" * 20, 280)
    assert 256 < len(known) <= 280
    assert known.decode(known.encode(TEXT).tolist()) == TEXT
    assert len(known.encode("the cat")) < len("the cat")


@pytest.mark.parametrize("length", [1, 3, 40])
def test_a_long_text_in_parts_has_the_tokens_of_the_whole(length, monkeypatch):
    """Of spaces, tabs, empty lines and ends of several systems before and behind words."""
    rng = random.Random(0)
    words = [
        "the",
        "cat",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "\u3000",
        "\x85",
        "\x1c",
        "don't",
        "12",
        "…",
        "é",
        "\n ",
    ]
    text = "".join(rng.choice(words) for _ in range(4000))
    known = BytePairs.of(text, 300)
    whole = known.tokenizer.encode(text, add_special_tokens=False).ids
    parts = module.in_parts(text, length)
    assert "".join(parts) == text and len(parts) > 20
    monkeypatch.setattr(module, "in_parts", lambda text: parts)
    assert known.encode(text).tolist() == whole
    # another tokenizer, which may cut texts otherwise, has them whole
    other = json.loads(known.statement)
    other["pre_tokenizer"]["add_prefix_space"] = True
    monkeypatch.setattr(module, "in_parts", None)
    assert len(BytePairs(json.dumps(other)).encode(text))


def test_a_tokenizer_may_be_written_in_lines_and_mark_its_texts():
    """As its library saves it; a text's tokens are its own, and none of a template's."""
    from tokenizers import Tokenizer, processors

    plain = BytePairs.of("the cat and the dog and the bird\n" * 20, 280)
    marking = Tokenizer.from_str(plain.statement)
    marking.add_special_tokens(["<s>"])
    template = {"single": "<s> $A", "special_tokens": [("<s>", marking.token_to_id("<s>"))]}
    marking.post_processor = processors.TemplateProcessing(**template)
    for pretty in (False, True):
        known = vocabulary(marking.to_str(pretty=pretty))
        assert type(known) is BytePairs and len(known) == len(plain) + 1
        assert known.encode(TEXT).tolist() == plain.encode(TEXT).tolist()
        assert known.decode(known.encode(TEXT).tolist()) == TEXT


def test_strange_characters_are_named():
    with pytest.raises(ValueError, match=r"2 of the text's 4 characters are not in the vocabulary: 'cd'"):
        Characters("ab").encode("abdc")


@pytest.mark.parametrize("statement", ["", "a", "ba", "aa", '{"model": 1}'])
def test_what_states_no_vocabulary(statement):
    with pytest.raises(ValueError, match=r"vocabulary|tokenizer"):
        vocabulary(statement)


def test_the_vocabulary_travels_with_the_model(tmp_path):
    import genzoo

    for known in (Characters.of(TEXT), Bytes(), BytePairs.of(TEXT, 300)):
        model = GPT((8,), len(known), vocabulary=known.statement, width=8, depth=1, heads=1)
        genzoo.publish(model, "text/gpt", to=tmp_path / "entry")
        again = genzoo.load(tmp_path / "entry")
        assert again.text(again.tokens("naïve 🐍 f"[:5])) == "naïve"
        assert again.sample(1, prompt="def").shape == (1, 8)


@pytest.mark.parametrize("context", [1, 4, 5])
@pytest.mark.parametrize("number", [3, 5, 6, 7, 9])
def test_what_goes_on_is_drawn_as_it_is_likely(context: int, number: int) -> None:
    """By the inverse of the distribution function: of the token after so many others, in one view or not."""
    torch.manual_seed(0)
    model = GPT((context,), 3, width=8, depth=1, heads=1).eval()
    torch.nn.init.normal_(model.embedding.weight, std=2.0)
    text = torch.randint(3, (number,), generator=seeded())
    options = torch.cat([text.expand(3, -1), torch.arange(3)[:, None]], 1)
    likely = model.log_prob(options).softmax(0)
    steps = 3000
    noise = torch.zeros(steps, number + 1)
    noise[:, -1] = (torch.arange(steps) + 0.5) / steps
    known = (torch.arange(number + 1) < number).expand(steps, -1)
    drawn = model.generate(F.pad(text, (0, 1)).expand(steps, -1), known, noise)[:, -1]
    torch.testing.assert_close(drawn.bincount(minlength=3) / steps, likely, atol=1e-3, rtol=0)
    assert model.completion_kind(known) == "exact"
    assert model.completion_kind(known.flip(1)) == "approximate"
