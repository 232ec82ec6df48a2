"""Penalties against discriminators whose gradient is known, spectral normalisation against the SVD, packing."""

import pytest
import torch
from torch import Tensor, nn

from genzoo.zoo import GAN, R1, R2, GradientPenalty, NonSaturating, Packing, SpectralNorm
from genzoo.zoo.gan.regularisers import Penalty, packed

SHAPE = (2, 3, 3)


def images(n: int, seed: int) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Quadratic:
    """D(x) = ½ xᵀ A x + w · x, whose gradient is A x + w."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        square = torch.randn(18, 18, generator=generator, dtype=torch.float64)
        self.a = ((square + square.T) / 6).requires_grad_()
        self.w = torch.randn(18, generator=generator, dtype=torch.float64).requires_grad_()

    def __call__(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return 0.5 * ((flat @ self.a) * flat).sum(1) + flat @ self.w

    def gradient(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.a + self.w


def test_r1_and_r2_are_half_gamma_times_the_squared_norm_of_each_datum() -> None:
    critic, real, fake = Quadratic(), images(5, 1), images(5, 2)
    for penalty, x in ((R1(3.0), real), (R2(3.0), fake)):
        expected = 1.5 * critic.gradient(x).square().sum(1)
        torch.testing.assert_close(penalty.penalty(critic, real, fake), expected)


def test_gradient_penalty_is_that_of_each_pair_s_own_mixture() -> None:
    critic, real, fake = Quadratic(), images(5, 1), images(5, 2)
    torch.manual_seed(3)
    value = GradientPenalty(10.0).penalty(critic, real, fake)
    torch.manual_seed(3)
    mix = torch.rand(5, 1, 1, 1, dtype=torch.float64)
    expected = 10 * (critic.gradient(mix * real + (1 - mix) * fake).norm(dim=1) - 1).square()
    torch.testing.assert_close(value, expected)


def test_a_linear_discriminator_has_one_slope_everywhere() -> None:
    w = torch.randn(18, dtype=torch.float64)
    real, fake = images(4, 1), images(4, 2)

    def critic(x: Tensor) -> Tensor:
        return x.flatten(1) @ w

    four = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(R1(2.0).penalty(critic, real, fake), w.square().sum() * four)
    torch.testing.assert_close(GradientPenalty(5.0).penalty(critic, real, fake), 5 * (w.norm() - 1).square() * four)


def test_a_flat_discriminator_gives_the_gradient_penalty_a_gradient_that_is_a_number() -> None:
    w = torch.zeros(18, dtype=torch.float64, requires_grad=True)
    GradientPenalty().penalty(lambda x: x.flatten(1) @ w, images(3, 1), images(3, 2)).sum().backward()
    assert bool(torch.isfinite(w.grad).all())


def test_penalties_reach_the_weights_through_the_gradient() -> None:
    """∂/∂w of γ/2 ‖A x + w‖² is γ (A x + w)."""
    critic, real = Quadratic(), images(1, 1)
    R1(0.7).penalty(critic, real, real).sum().backward()
    torch.testing.assert_close(critic.w.grad, 0.7 * critic.gradient(real)[0].detach())


@pytest.mark.parametrize("penalty", [R1(), R2(), GradientPenalty()])
def test_a_datum_s_penalty_does_not_depend_on_the_others(penalty: Penalty) -> None:
    critic, real = Quadratic(), images(5, 1)
    together = penalty.penalty(critic, real, real)  # real = fake, so that the mixture is no matter of chance
    alone = torch.cat([penalty.penalty(critic, x[None], x[None]) for x in real])
    torch.testing.assert_close(together, alone)


def test_lazy_penalties_are_as_much_stronger_as_they_are_rarer() -> None:
    critic, real = Quadratic(), images(3, 1)
    torch.testing.assert_close(R1(1.0, every=4).penalty(critic, real, real), 4 * R1(1.0).penalty(critic, real, real))
    assert [R1(every=4).is_due(step) for step in range(9)] == [step in (3, 7) for step in range(9)]


def test_penalties_stand_outside_autocast() -> None:
    torch.manual_seed(0)
    model = GAN((1, 8, 8), 17, width=8, regularisers=[R1(1.0)], loss=NonSaturating())
    x = torch.randint(17, (4, 1, 8, 8)) / 16
    full = model.discriminator_loss(x, None, step=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.discriminator_loss(x, None, step=0)
    assert torch.equal(half["r1"], full["r1"])
    assert not torch.equal(half["loss_discriminator"], full["loss_discriminator"])


@pytest.mark.parametrize("network", ["mlp", "convolutional"])
def test_derivatives_of_penalties_stand_outside_autocast(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's backward pass runs within it, and second derivatives are products of their own."""
    torch.manual_seed(0)
    shape = (2,) if network == "mlp" else (1, 8, 8)
    model = GAN(shape, None if network == "mlp" else 17, width=8, regularisers=[R1(1.0)], loss=NonSaturating())
    x, made = torch.rand(2, 4, *shape)
    monkeypatch.setattr(model, "manual_backward", lambda loss: loss.backward())
    gradients = []
    for half in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            losses = model._backward(
                lambda x, labels: {"r1": model.discriminator_loss(x, labels, step=0, made=made)["r1"]}, x, None
            )
        gradients.append(
            [losses["r1"], *(p.grad.clone() for p in model.discriminator.parameters() if p.grad is not None)]
        )
    assert len(gradients[0]) > 2 and all(map(torch.equal, *gradients))


def test_spectral_norm_is_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(5, 7), nn.Linear(7, 1))
    originals = [m.weight.detach().clone() for m in network if hasattr(m, "weight")]
    SpectralNorm().constrain(network)
    for _ in range(200):  # power iteration goes on with each step of training
        network(torch.zeros(1, *SHAPE))
    layers = [m for m in network if hasattr(m, "weight")]
    for layer, original in zip(layers, originals, strict=True):
        largest = torch.linalg.svdvals(original.flatten(1))[0]
        torch.testing.assert_close(layer.weight, original / largest, atol=1e-5, rtol=1e-4)


def test_spectral_norm_has_the_gradient_of_the_quotient_and_rests_in_evaluation() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4).double()
    weight = layer.weight.detach().clone().requires_grad_()
    SpectralNorm().constrain(layer)
    x, probe = torch.randn(3, 6).double(), torch.randn(3, 4).double()
    for _ in range(300):
        layer(x)
    (layer(x) * probe).sum().backward()
    exact = x @ (weight / torch.linalg.matrix_norm(weight, 2)).T + layer.bias.detach()
    (exact * probe).sum().backward()
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, weight.grad, atol=1e-8, rtol=1e-6)
    layer.eval()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    layer(x)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


def test_packs_are_a_datum_and_its_neighbours() -> None:
    x = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 2, 3, 3)
    packs = packed(x, 3)
    assert packs.shape == (5, 6, 3, 3)
    assert packs[:, ::2, 0, 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0], [4, 0, 1]]
    assert packed(x, 1) is x


def test_a_packed_discriminator_sees_packs_and_judges_no_single_datum() -> None:
    for shape, levels in ((SHAPE, 256), ((2,), None), ((1, 16), 256)):
        model = GAN(shape, levels, width=8, regularisers=[Packing(3), R1(1.0)])
        x = torch.zeros(5, *shape)
        quantities = model.objective(x, None)
        assert all(value.shape == (5,) for value in quantities.values())
        assert model.evaluation(x, None, torch.Generator()) == {}
        with pytest.raises(ValueError, match="judges packs"):
            model.anomaly_score(x, scorer="discriminator")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: R1(-1.0), "weight=-1"),
        (lambda: R2(1.0, every=0), "every=0"),
        (lambda: Packing(1), "at least 2"),
        (lambda: GAN((2,), None, regularisers=[R1(1.0), R1(2.0)]), "once"),
        (lambda: GAN((2,), None, regularisers=[Packing(2)], num_classes=3, conditional=True), "Packing"),
    ],
)
def test_impossible_regularisers_are_refused(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_spectral_norm_is_where_the_weight_is() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1)).to("meta")
    SpectralNorm().constrain(network)
    assert network(torch.empty(2, 16, device="meta")).device.type == "meta"
