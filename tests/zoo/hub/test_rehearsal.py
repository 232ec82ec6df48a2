"""A rehearsed model has the tensors of the real one, and takes no memory for them."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from families import CASES
from torch import nn

from genzoo.zoo import DDPM, GAN, MADE, VAE, CosineBetas, Gaussian, Packing, SpectralNorm
from genzoo.zoo.hub.building import build, fits, model_classes
from genzoo.zoo.hub.rehearsal import check_tables, rehearsal
from genzoo.zoo.likelihoods import Likelihood

BUILDS = {
    **{str(case): (case.family, case.shape, case.levels, {}) for case in CASES},
    "an order": (MADE, (1, 8, 8), 17, {"order_seed": 3}),
    "spectral norms": (GAN, (1, 8, 8), 17, {"regularisers": [SpectralNorm(), Packing()]}),
    "classes": (DDPM, (1, 8, 8), 17, {"num_classes": 3, "conditional": True, "attention": True}),
    "a schedule": (DDPM, (2,), None, {"schedule": CosineBetas(steps=50), "prediction": "v", "spacing": "karras"}),
}


@pytest.mark.parametrize("name", BUILDS)
def test_every_family_can_be_rehearsed(name: str) -> None:
    family, shape, levels, options = BUILDS[name]
    real = family(shape=shape, levels=levels, **options)
    with rehearsal(len(real.state_dict())):
        rehearsed = family(shape=shape, levels=levels, **options)
    tensors = [*rehearsed.parameters(), *rehearsed.buffers()]
    assert tensors and all(tensor.is_meta for tensor in tensors)
    described = [
        {key: (value.shape, value.dtype) for key, value in model.state_dict().items()} for model in (real, rehearsed)
    ]
    assert described[0] == described[1]
    check_tables(rehearsed)


def test_a_rehearsal_leaves_what_families_share_as_it_was() -> None:
    """A default schedule is one object for all models, with a table that is computed once."""
    with rehearsal(100):
        DDPM(shape=(2,), levels=None)
    assert DDPM(shape=(2,), levels=None).sample(2).device.type == "cpu"


def test_it_ends_where_a_model_goes_beyond_its_weights() -> None:
    class Endless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList()
            while True:
                self.layers.append(nn.Linear(2, 2))

    with pytest.raises(ValueError, match="more layers than there are weights for"), rehearsal(4):
        Endless()


def test_tables_out_of_proportion_are_refused() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("table", torch.empty(2**25, device="meta"), persistent=False)
    with pytest.raises(ValueError, match="134,217,728 bytes for tables, beside 24 bytes of weights"):
        check_tables(module)


# ---- what arguments may be


@pytest.mark.parametrize(
    ("value", "hint", "does"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        ("1", int, False),
        (1, float, True),
        (1.5, float, True),
        (True, float, False),
        ("1", float, False),
        (True, bool, True),
        (0, bool, True),
        (2, bool, False),
        ("false", bool, False),
        (None, int | None, True),
        (None, int, False),
        ("mlp", Literal["mlp", "resnet"] | None, True),
        ("lstm", Literal["mlp", "resnet"] | None, False),
        (1, Literal[True, "auto"], False),
        ([1, 2], Sequence[int], True),
        ((1, 2), Sequence[int], True),
        ([1, 2.0], Sequence[int], False),
        ("12", Sequence[int], False),
        ([1], list[int] | None, True),
        (Gaussian(), Likelihood | None, True),
        ({}, Likelihood | None, False),
        (Gaussian, Likelihood | None, False),
        ({}, Any, True),
    ],
)
def test_a_value_fits_its_annotation(value: Any, hint: Any, does: bool) -> None:
    assert fits(value, hint) is does


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"widht": 8}, "unexpected keyword argument 'widht'"),
        ({"width": "8"}, r"width is '8', but must be int \| None"),
        ({"likelihood": {}}, "likelihood is a dict, but must be"),
        (
            {"likelihood": {"class_path": "genzoo.zoo.Gaussian", "scale": 1.0}},
            "'scale': its arguments belong into init_args",
        ),
        ({"likelihood": {"class_path": "genzoo.zoo.Gaussian", "init_args": {"scael": 1.0}}}, "scael"),
        ({"latent_dim": 2**40}, "latent_dim is 1099511627776, but 2,097,152 is the most"),
        ({"encoder": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2}}}, "out_features"),
        (
            {"encoder": {"class_path": "torch.nn.Unflatten", "init_args": {"dim": {}, "unflattened_size": 2}}},
            "Unflatten",
        ),
    ],
)
def test_arguments_that_a_class_does_not_take_are_one_line(arguments: dict[str, Any], says: str) -> None:
    block = {"class_path": "genzoo.zoo.VAE", "init_args": {"shape": [2], "levels": None, **arguments}}
    with pytest.raises(ValueError, match=says) as refused:
        build(block, model_classes())
    assert "\n" not in str(refused.value)


def test_a_class_that_extends_ours_has_arguments_of_its_own() -> None:
    class Mine(VAE):
        def __init__(self, shape: Sequence[int], levels: int | None, width: str = "narrow") -> None:
            super().__init__(shape, levels, width={"narrow": 4, "wide": 8}[width], depth=0)

    built = build(
        {"class_path": "Mine", "init_args": {"shape": [2], "levels": None, "width": "wide"}}, {"Mine": Mine}
    )
    assert built.encoder.inlet.out_features == 8
