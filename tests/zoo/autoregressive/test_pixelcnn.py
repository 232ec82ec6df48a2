"""The PixelCNN against what defines it: causal to the bit, no blind spot, and a cache that gives what it would."""

import itertools

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional as F

from genzoo.zoo import PixelCNN
from genzoo.zoo.autoregressive.base import raster_order
from genzoo.zoo.hub import load, load_checkpoint, publish
from genzoo.zoo.modality import from_codes
from genzoo.zoo.networks.masked import MaskedConv2d, channel_mask


def loud(shape, levels, scale=2.0, **options):
    torch.manual_seed(0)
    model = PixelCNN(shape, levels, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def jacobian_in_order(model, monkeypatch):
    """(D, D): Σ_levels |∂ logits_i / ∂ x_j|, i and j in the order of the dimensions, x the scaled image."""
    image = torch.rand(1, *model.shape, generator=seeded()) * 2 - 1
    monkeypatch.setattr(model, "scaled", lambda codes: codes)

    def logits(x):
        return model.logits(x, None).flatten(2)[0][:, raster_order(model.shape)]

    rows = torch.autograd.functional.jacobian(logits, image).abs().sum(0)
    return rows.flatten(1)[:, raster_order(model.shape)]


@pytest.mark.parametrize(
    ("shape", "levels", "options"),
    [
        ((1, 7, 8), 2, {}),
        ((1, 5, 7), 3, {"depth": 4, "kernel_size": 5, "dilations": [1]}),
        ((3, 5, 6), 4, {"channels": 12}),
        ((3, 4, 5), 3, {"channels": 10, "depth": 4, "dilations": [2, 1]}),  # groups of unequal size
        ((2, 4, 6), 2, {"channels": 8}),
        ((1, 5, 6), 256, {"mixtures": 2}),
        ((3, 5, 6), 4, {"distribution": "logistic_mixture", "mixtures": 3}),
        ((4, 3, 3), 64, {"mixtures": 2}),
    ],
)
def test_the_jacobian_is_exactly_zero_from_the_dimension_on_and_alive_before_it(shape, levels, options, monkeypatch):
    """Every earlier dimension is alive, so there is no blind spot; R does not see G, but G sees R."""
    model = loud(shape, levels, **{"channels": 16, "depth": 6, **options})
    jacobian = jacobian_in_order(model, monkeypatch)
    earlier = torch.ones_like(jacobian).tril(-1).bool()
    assert torch.equal(jacobian[~earlier], torch.zeros_like(jacobian[~earlier]))
    assert bool((jacobian[earlier] > 0).all())


def centred(conv, kernel_size):
    """A convolution's masked weight as the upper left part of a kernel of odd sizes, all else of which is zero."""
    weight = conv.masked_weight() if isinstance(conv, MaskedConv2d) else conv.weight
    rows, columns = weight.shape[2:]
    return F.pad(weight, (0, kernel_size[1] - columns, 0, kernel_size[0] - rows))


def by_square_kernels(model, codes, labels):
    """The logits by kernels that are as large as if nothing were masked, centred on the pixel; all out of place."""

    def conv(layer, x, kernel_size=(1, 1), dilation=1):
        padding = tuple(dilation * (size // 2) for size in kernel_size)
        return F.conv2d(x, centred(layer, kernel_size), layer.bias, padding=padding, dilation=dilation)

    x = 2 * codes.to(model.row.dtype) / (model.levels - 1) - 1
    v = conv(model.above, x, (7, 7)) + model.row + model.column
    v = v if labels is None else v + model.class_.weight[labels][..., None, None]
    h = conv(model.left, x, (1, 7)) + v
    for layer in model.layers:
        k, d = layer.above.weight.shape[3], layer.dilation
        v = v + F.silu(conv(layer.above, v, (k, k), d))
        h = h + conv(layer.told, v)
        gated = conv(layer.content, h, (1, k), d) * torch.sigmoid(conv(layer.gate, h, (1, k), d))
        h = h + conv(layer.outlet, gated)
    outputs = conv(model.outlet, F.silu(conv(model.features, F.silu(h))))
    return outputs.unflatten(1, (model.shape[0], -1)).transpose(1, 2)


@pytest.mark.parametrize(
    ("shape", "levels", "options"),
    [
        ((1, 7, 8), 2, {"depth": 4}),
        ((1, 6, 9), 3, {"kernel_size": 5, "dilations": [2, 1]}),
        ((3, 5, 6), 4, {"channels": 13}),
        ((1, 8, 8), 5, {"num_classes": 3, "conditional": True}),
    ],
)
def test_the_network_and_its_gradients_are_those_of_masked_square_kernels(shape, levels, options):
    model = loud(shape, levels, 1.5, **{"channels": 12, "depth": 3, **options}).double()
    codes = torch.randint(levels, (3, *shape), generator=seeded())
    labels = torch.tensor([0, 2, 1]) if model.num_classes else None
    weights = torch.randn(3, levels, *shape, generator=seeded()).double()
    names, parameters = zip(*model.named_parameters(), strict=True)
    ours, expected = model.logits(codes, labels), by_square_kernels(model, codes, labels)
    torch.testing.assert_close(ours, expected)
    gradients = [torch.autograd.grad((logits * weights).sum(), parameters) for logits in (ours, expected)]
    for name, gradient, other in zip(names, *gradients, strict=True):
        torch.testing.assert_close(gradient, other, msg=lambda message, name=name: f"{name}: {message}")


def test_the_first_dimension_depends_on_nothing_but_its_place_and_class():
    model = loud((1, 4, 4), 2, channels=8, depth=2, num_classes=2, conditional=True)
    a, b = torch.randint(2, (2, 3, 1, 4, 4), generator=seeded())
    labels = torch.tensor([0, 1, 0])
    first = [model.logits(codes, labels)[..., 0, 0] for codes in (a, b)]
    assert torch.equal(*first)
    assert torch.equal(first[0][0], first[0][2]) and not torch.equal(first[0][0], first[0][1])


@pytest.mark.parametrize(
    ("shape", "levels", "options"),
    [
        ((1, 9, 11), 2, {}),
        ((1, 6, 7), 63, {"kernel_size": 5}),
        ((1, 6, 7), 256, {"kernel_size": 5}),
        ((3, 5, 6), 256, {"num_classes": 4, "conditional": True}),
        ((3, 5, 6), 8, {"channels": 13}),
        ((1, 8, 8), 17, {"num_classes": 4, "conditional": True}),
    ],
)
def test_cached_logits_are_those_of_the_whole_network_at_every_position(shape, levels, options, monkeypatch):
    """Teacher-forced: the cached sampler is fed the datum's own values and what its network says is listened to."""
    model = loud(shape, levels, **{"channels": 16, "depth": 4, **options})
    model.double()  # each processor rounds float32 its own way
    codes = torch.randint(levels, (3, *shape), generator=seeded())
    labels = torch.tensor([0, 3, 1]) if model.num_classes else None
    pixels = iter(codes.flatten(2).unbind(2))
    heard, now = [], []

    def listen(turn, outputs, *_):
        now[:] = [next(pixels)] if turn == 0 else now
        heard.append(outputs.chunk(model.turns, 1)[turn])
        return now[0].chunk(model.turns, 1)[turn]

    with torch.no_grad():
        full = model.outputs(codes, labels)
        monkeypatch.setattr(model, "draw_turn", listen)
        drawn = model.draw(torch.zeros_like(codes), torch.zeros_like(codes).bool(), labels, torch.rand(codes.shape))
    assert torch.equal(drawn, codes)
    assert len(heard) == model.network_evaluations == model.turns * shape[1] * shape[2]
    ours = torch.stack(heard, 2).unflatten(2, (-1, model.turns)).transpose(2, 3).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(ours, full.flatten(2), atol=1e-12, rtol=1e-12)
    assert float(full.std()) > 0.1


@pytest.mark.parametrize(
    ("shape", "levels", "options"),
    [
        ((3, 6, 5), 256, {}),
        ((1, 6, 5), 64, {"mixtures": 3, "num_classes": 3, "conditional": True}),
        ((3, 4, 4), 3, {"distribution": "logistic_mixture"}),
        ((4, 3, 4), 1000, {"mixtures": 2}),
    ],
)
def test_one_pass_for_each_pixel_draws_what_the_whole_network_for_each_channel_would(shape, levels, options):
    """Also where channels of a pixel are known and others are not, before or after them."""
    model = loud(shape, levels, 1.5, **{"channels": 16, "depth": 3, **options}).double()
    codes = torch.randint(levels, (8, *shape), generator=seeded())
    labels = torch.randint(3, (8,), generator=seeded()) if model.num_classes else None
    noise = torch.rand(codes.shape, generator=seeded(1)).double()
    for share in (0.0, 0.4):
        known = torch.rand(codes.shape, generator=seeded(2)) < share
        drawn = model.draw(codes, known, labels, noise)
        assert torch.equal(drawn, model.draw_uncached(codes, known, labels, noise))
        assert torch.equal(drawn[known], codes[known])
    assert model.network_evaluations == shape[1] * shape[2]
    assert len(drawn.unique()) > 2


def test_a_file_from_before_there_were_mixtures_means_softmaxes(tmp_path):
    """Whatever the levels: an entry, a training checkpoint as an entry, and by Lightning's own way."""
    torch.manual_seed(0)
    model = PixelCNN((3, 4, 4), 256, channels=6, depth=1, distribution="softmax").eval()
    x = model.sample(2, generator=seeded())
    publish(model, "tiny/pixelcnn", to=tmp_path / "entry")
    config = (tmp_path / "entry" / "config.yaml").read_text()
    older = config.replace("    distribution: softmax\n", "").replace("    mixtures: 10\n", "")
    assert len(older) < len(config) - 40
    (tmp_path / "entry" / "config.yaml").write_text(older)
    trainer = Trainer(logger=False, barebones=True)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    checkpoint = torch.load(tmp_path / "new.ckpt", weights_only=True)
    del checkpoint["hyper_parameters"]["distribution"], checkpoint["hyper_parameters"]["mixtures"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    for again in (
        load(tmp_path / "entry"),
        load_checkpoint(tmp_path / "old.ckpt"),
        PixelCNN.load_from_checkpoint(tmp_path / "old.ckpt").eval(),
        PixelCNN.load_from_checkpoint(tmp_path / "new.ckpt").eval(),
    ):
        assert again.mixture is None
        torch.testing.assert_close(again.log_prob(x), model.log_prob(x), rtol=1e-3, atol=0)
    mixed = PixelCNN((3, 4, 4), 256, channels=6, depth=1)
    publish(mixed, "tiny/mixed", to=tmp_path / "mixed")
    assert load(tmp_path / "mixed").mixture == mixed.mixture is not None


def test_levels_decide_which_distribution_and_an_argument_overrules_them():
    for levels, outputs in ((2, 6), (63, 189), (64, 100), (256, 100)):
        assert PixelCNN((3, 4, 4), levels, channels=12, depth=1).outlet.out_channels == outputs
    assert PixelCNN((3, 4, 4), 256, channels=12, depth=1, distribution="softmax").outlet.out_channels == 768
    assert PixelCNN((3, 4, 4), 4, depth=1, distribution="logistic_mixture", mixtures=2).outlet.out_channels == 20
    assert PixelCNN((1, 4, 4), 256, depth=1, mixtures=5).outlet.out_channels == 15


def test_a_mixture_learns_colours_that_depend_on_each_other():
    """Green is red, blue its opposite, but for a level: what the coupling states is soon learned."""
    torch.manual_seed(0)
    red = torch.randint(2, 254, (64, 1, 4, 4))
    codes = torch.cat([red, red, 255 - red], 1) + torch.randint(-1, 2, (64, 3, 4, 4))
    model = PixelCNN((3, 4, 4), 256, channels=12, depth=1, mixtures=2)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        model.objective(codes / 255, None)["loss"].mean().backward()
        optimizer.step()
    nats = -model.log_prob_per_dim(codes / 255, None).detach().mean((0, 2, 3))
    assert float(nats[0]) > 5  # ln 252 is 5.5
    assert float(nats[1]) < 4 and float(nats[2]) < 4
    drawn = model.codes(model.sample(64, generator=seeded())).double()
    assert float((drawn[:, 1] - drawn[:, 0]).abs().median()) < 12
    assert float((drawn[:, 2] + drawn[:, 0] - 255).abs().median()) < 12


def test_rows_that_are_known_are_not_drawn(monkeypatch):
    model = loud((1, 6, 5), 2, channels=8, depth=2)
    asked = []
    choose = model.choose
    monkeypatch.setattr(model, "choose", lambda *a: asked.append(1) or choose(*a))
    known = torch.zeros(1, 6, 5, dtype=torch.bool)
    known[:, :4] = True
    model.complete(model.sample(2, generator=seeded()), known)
    assert len(asked) == 30 + 10


def test_a_conditional_sample_heeds_its_label_and_colours_come_in_turn():
    """A rigged network: the outlet's bias alone decides, so the samples are known beforehand."""
    model = PixelCNN((3, 4, 4), 3, channels=12, depth=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.outlet.bias.view(3, 3).copy_(torch.tensor([[50.0, 0, 0], [0, 50, 0], [0, 0, 50]]))
    x = model.sample(2, generator=seeded())
    assert torch.equal(x, torch.tensor([0.0, 0.5, 1.0])[:, None, None].expand(2, 3, 4, 4))
    torch.testing.assert_close(model.log_prob(x), torch.zeros(2), atol=1e-6, rtol=0)


def test_masks_are_no_part_of_the_weights_or_the_state():
    model = PixelCNN((3, 4, 4), 2, channels=12, depth=1)
    masked = [m for m in model.modules() if isinstance(m, MaskedConv2d) and m.mask is not None]
    assert masked
    assert all(bool((m.weight[~m.mask.view_as(m.weight)] != 0).all()) for m in masked)
    model.objective(torch.ones(2, 3, 4, 4), None)["loss"].mean().backward()
    assert all(bool((m.weight[~m.mask.view_as(m.weight)] != 0).all()) for m in masked)
    assert all(bool((m.weight.grad[~m.mask.view_as(m.weight)] == 0).all()) for m in masked)
    assert not [name for name in model.state_dict() if "mask" in name]


def test_channel_masks_are_those_of_the_paper():
    a, b = (channel_mask(3, 3, 3, strict=strict) for strict in (True, False))
    assert a.int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert b.int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    wide = channel_mask(9, 6, 3, strict=False)
    for out, into in itertools.product(range(9), range(6)):
        assert bool(wide[out, into]) == (into // 2 <= out // 3)


@pytest.mark.parametrize("levels", [2, 256])
def test_half_precision_costs_little_and_keeps_the_likelihood_in_full(levels):
    model = loud((3, 8, 8), levels, 1.5, channels=33, depth=3)
    x = from_codes(torch.randint(levels, (16, 3, 8, 8), generator=seeded()), levels)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.log_prob(x)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, model.log_prob(x), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8,)}, "is for images"),
        ({"levels": None}, "discrete"),
        ({"kernel_size": 4}, "odd"),
        ({"depth": 0}, "depth=0"),
        ({"dilations": []}, r"dilations=\[\]"),
        ({"shape": (3, 8, 8), "channels": 2}, "channels=2"),
        ({"distribution": "normal"}, "distribution='normal'"),
        ({"levels": 256, "mixtures": 0}, "mixtures=0"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PixelCNN(**{"shape": (1, 8, 8), "levels": 2, **arguments})
