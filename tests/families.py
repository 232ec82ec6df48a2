"""Every family with data that it is for, and what it claims: what the contract is tested on."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from thorough import some
from torch import Tensor

from genzoo.datamodules import DataModule, InMemory
from genzoo.zoo import (
    DDPM,
    FSQ,
    GAN,
    GPT,
    MADE,
    VAE,
    VQ,
    Autoencoder,
    DenoisingAutoencoder,
    FlowMatching,
    LatentModel,
    MaskedDiffusion,
    PixelCNN,
    QuantisedAutoencoder,
    ScoreModel,
    WaveNet,
    ZooModule,
)
from genzoo.zoo.interface import (
    Completes,
    HasCodes,
    HasLatents,
    HasLogProb,
    Interpolates,
    Inverts,
    Samples,
    SamplesInSteps,
    ScoresAnomalies,
)
from genzoo.zoo.modality import from_codes, modality

IMAGES = [((1, 8, 8), 17), ((1, 8, 8), 2), ((3, 8, 8), 256), ((1, 7, 9), 256)]
POINTS = [((2,), None)]
TOKENS = [((12,), 11)]
WAVEFORMS = [((1, 40), 256)]

CAPABILITIES = {
    Samples,
    SamplesInSteps,
    HasLogProb,
    ScoresAnomalies,
    Completes,
    HasCodes,
    HasLatents,
    Interpolates,
    Inverts,
}
WRITES = {Samples, SamplesInSteps, HasLogProb, ScoresAnomalies, Completes}
DIFFUSES = {Samples, SamplesInSteps, HasLogProb, ScoresAnomalies, Completes, Interpolates, Inverts}
CODES = {Samples, HasLogProb, ScoresAnomalies, Completes}
#: a family, the data that it is for, and what it can do: a new family is tested by adding its line
FAMILIES: list[tuple[type[ZooModule], list[tuple[tuple[int, ...], int | None]], set[type]]] = [
    (MADE, IMAGES[:2] + TOKENS + POINTS, WRITES),
    (PixelCNN, IMAGES, WRITES),
    (GPT, TOKENS, WRITES),
    (WaveNet, WAVEFORMS, WRITES),
    (VAE, IMAGES + POINTS, {Samples, HasLogProb, ScoresAnomalies, Completes, HasLatents, Interpolates}),
    (Autoencoder, IMAGES + POINTS, {ScoresAnomalies, Completes, HasLatents, Interpolates}),
    (DenoisingAutoencoder, IMAGES[:1] + POINTS, {ScoresAnomalies, Completes, HasLatents, Interpolates}),
    (QuantisedAutoencoder, IMAGES, {ScoresAnomalies, HasCodes}),
    (GAN, IMAGES + POINTS + WAVEFORMS, {Samples, ScoresAnomalies, Completes, Interpolates, Inverts}),
    (DDPM, IMAGES[1::2] + POINTS, DIFFUSES),
    (ScoreModel, IMAGES[:1] + POINTS, DIFFUSES),
    (FlowMatching, IMAGES[2:3] + POINTS, DIFFUSES),
    (MaskedDiffusion, TOKENS + IMAGES[1:3], WRITES),
    (LatentModel, IMAGES[:1] + IMAGES[2:], CODES),
]


@dataclass(frozen=True)
class Case:
    """A family on one kind of data."""

    family: type[ZooModule]
    shape: tuple[int, ...]
    levels: int | None
    claimed: frozenset[type]
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, seed: int = 0) -> Any:
        """The model, from nothing but shape and levels (and the options); the same for a seed."""
        torch.manual_seed(seed)
        return self.family(shape=self.shape, levels=self.levels, **self.options)

    def data(self, num: int) -> Tensor:
        """(num, *shape)."""
        return random_data(num, self.shape, self.levels)

    def __str__(self) -> str:
        name = f"{self.family.__name__}-{'x'.join(map(str, self.shape))}-{self.levels}"
        return name + "".join(f"-{option}" for option in self.options if option != "num_classes")


#: fewer layers of what many families have many of, each of which does what the others do
FEW_LAYERS: dict[type[ZooModule], dict[str, Any]] = {
    GPT: {"depth": 1},
    MaskedDiffusion: {"depth": 1},
    PixelCNN: {"depth": 2},
    WaveNet: {"dilations": (1, 2)},
    LatentModel: {"prior": partial(GPT, depth=1)},
}


def with_few_layers(case: Case) -> Case:
    """The same, where the time goes by the layers."""
    return replace(case, options=FEW_LAYERS.get(case.family, {}) | dict(case.options))


#: a family with another network than the one it has for most data
OTHER_NETWORKS = [
    Case(DDPM, (2, 12), None, frozenset(DIFFUSES), {"width": 32, "depth": 2}),
    Case(FlowMatching, (1, 7, 9), 256, frozenset(DIFFUSES), {"network": "dit", "patch": 2, "width": 32, "depth": 2}),
]
#: a family that consists of two others than it has for most data
OTHER_PARTS = [
    Case(
        LatentModel,
        (1, 7, 9),
        256,
        frozenset(CODES | {Interpolates}),
        {"autoencoder": partial(VAE, network="spatial", latent_dim=2, width=8), "prior": partial(DDPM, width=16)},
    ),
]
#: p(x | y) of one
PRIORS = [
    Case(
        LatentModel,
        (1, 8, 8),
        17,
        frozenset(CODES),
        {
            "autoencoder": partial(QuantisedAutoencoder, quantiser=FSQ((5, 5)), width=8),
            "prior": partial(MaskedDiffusion, width=32, depth=1),
            "num_classes": 3,
            "conditional": True,
        },
    )
]
CASES = [Case(family, *kind, frozenset(claimed)) for family, data, claimed in FAMILIES for kind in data]
CASES += OTHER_NETWORKS + OTHER_PARTS
#: each family on the first kind of data in its line
FIRST = [Case(family, *data[0], frozenset(claimed)) for family, data, claimed in FAMILIES]
#: p(x | y), of each family that can be that
CONDITIONAL = [
    Case(case.family, case.shape, case.levels, case.claimed, {"num_classes": 3, "conditional": True})
    for case in FIRST
    if "conditional" in inspect.signature(case.family).parameters and case.family is not LatentModel
] + PRIORS
#: codes whose vectors follow the data: a state that no optimiser has
CODEBOOKS = [
    Case(QuantisedAutoencoder, (1, 8, 8), 17, frozenset({ScoresAnomalies, HasCodes}), {"quantiser": VQ(16, 4)})
]
#: which have between them every mechanism: two networks, two optimisers, a density, fitted variances, a cache, codes
VARIED = (VAE, GAN, Autoencoder, DDPM, GPT, QuantisedAutoencoder, LatentModel)


def varied(cases: Iterable[Case]) -> list[ParameterSet]:
    """The cases, of which `make test` has one of each family unlike the others, of labels, and of other networks."""
    seen: set[tuple[type, bool]] = set()

    def new(case: Case) -> bool:
        labelled = "conditional" in case.options
        kind = (case.family, labelled)
        found = case.family in ((VAE,) if labelled else VARIED) and kind not in seen
        found |= case in CODEBOOKS + OTHER_NETWORKS
        seen.add(kind)
        return found

    return some(cases, new)


#: each family once, of labels if it can be, and each that is put together otherwise
ONCE = [case for case in FIRST if case.family not in {labelled.family for labelled in CONDITIONAL}]
ONCE += CONDITIONAL + CODEBOOKS + OTHER_NETWORKS + OTHER_PARTS


def few_steps(patch: pytest.MonkeyPatch, *, flow: int, steps: int, repeats: int) -> None:
    """Likelihoods and completions of every diffusion in so few steps: what holds of few holds of many."""
    few = {"flow_steps": flow, "completion_steps": steps, "completion_repeats": repeats}
    few |= {"forecast_steps": steps, "forecast_repeats": repeats}
    for family in (DDPM, FlowMatching, ScoreModel):
        for name, value in few.items():
            patch.setattr(family, name, value)


def random_data(num: int, shape: tuple[int, ...], levels: int | None) -> Tensor:
    """(num, *shape): noise that is valid data."""
    if levels is None:
        return torch.randn(num, *shape)
    return from_codes(torch.randint(levels, (num, *shape)), levels, modality(shape, levels))


class Noise(DataModule):
    """Random data with labels, the same for everyone; 24 rows for training, 13 for validation.

    Of the labels 0, 1 and 2 the last is the rarest.
    """

    num_classes = 3

    def __init__(self, shape: tuple[int, ...], levels: int | None, batch_size: int = 4):
        super().__init__(val_size=13, batch_size=batch_size)
        self.shape, self.levels = shape, levels

    def load(self, split: str) -> InMemory:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            labels = torch.tensor([0, 1, 0, 1, 0, 1, 2]).repeat(6)[:37]
            return InMemory(random_data(37, self.shape, self.levels), labels)

    def scale(self, stored: Tensor) -> Tensor:
        return stored
