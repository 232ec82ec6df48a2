"""What can be said of a family of generative models: its idea, its equation, its price, and what it lacks and why.

All of it is about families. Which family a model belongs to is told by the module that its class comes from; what it
can do, by its capabilities.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from genzoo.zoo.modality import Modality, modality

#: what a datum is called, and a part of it
WORDS: dict[Modality, tuple[str, str]] = {
    "image": ("image", "pixel"),
    "waveform": ("sound", "sample"),
    "series": ("series", "value"),
    "tokens": ("text", "token"),
    "points": ("point", "coordinate"),
}


@dataclass(frozen=True, eq=False)
class Family:
    """One way to answer the question what the data look like; `said` puts in what a datum is called."""

    key: str
    title: str
    home: str | None  # the package, or the module, of its classes
    idea: str
    equation: str  # HTML
    tractability: str
    quality: str
    stability: str
    progress: str = "{percent} % of the way"  # how far a sample has come about
    first: int = 0  # 1 where the first frame already shows a part of it, 0 where it shows nothing yet
    lacks: dict[str, str] = field(default_factory=dict)  # by capability: why it is not there


FAMILIES = (
    Family(
        key="autoregressive",
        title="Autoregressive",
        home="genzoo.zoo.autoregressive",
        idea="Read the {datum} like a text, {part} after {part}, and learn to guess the next from all before it.",
        equation="p(x) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁)",
        tractability="The chain rule gives the likelihood exactly. A sample waits for every {part} in turn.",
        quality="Sharp in detail; the whole may drift, because a {part} once drawn is never taken back.",
        stability="Plain maximum likelihood: training goes down, and what it goes down to is what is reported.",
        progress="{done} of {dims} dimensions drawn",
        first=1,
        lacks={
            "latents": "There is no code behind the {datum}s: every {part} is drawn from those before it.",
            "interpolates": "There is no code behind the {datum}s, so there is no way to walk from one to another.",
            "inverts": "There is no code to go back to; the noise that decides each {part} is not unique.",
        },
    ),
    Family(
        key="latent",
        title="Latent-variable",
        home="genzoo.zoo.latent",
        idea="Suppose a short code behind every {datum}, and learn both ways: from {datum} to code, and back.",
        equation="p(x) = ∫ p(x | z) p(z) dz ≥ exp ELBO(x)",
        tractability="The integral over codes is out of reach, so a variational model reports a bound on it.",
        quality="Samples come in one step, and a little soft: the code is short, and the {part}s are drawn apart.",
        stability="Trains on one objective; codes may fall out of use (posterior collapse), which KL shows.",
        lacks={
            "samples": "It maps codes to {datum}s, but no distribution of codes was fitted to draw them from.",
            "log_prob": "It learns to reconstruct, and states no distribution of {datum}s: there is no p(x).",
            "steps": "A sample is there at once: one code, decoded once.",
            "inverts": "A code says what the {datum} is like; what became of each {part} is drawn beside it: lost.",
        },
    ),
    Family(
        key="implicit",
        title="Implicit",
        home="genzoo.zoo.gan",
        idea="Learn to turn noise into {datum}s that a second network, trained against the first, takes for real.",
        equation="min<sub>G</sub> max<sub>D</sub> E log D(x) + E log(1 − D(G(z)))",
        tractability="It draws, and that is all it states: no likelihood, and no code for a given {datum}.",
        quality="Crisp samples in one step; it may leave out kinds of {datum}s, which recall and coverage show.",
        stability="A game of two: it can cycle or collapse without its loss saying so. Penalties hold it together.",
        lacks={
            "log_prob": "A generator draws {datum}s without giving any of them a probability: there is no p(x).",
            "latents": "It has no encoder: a code for a given {datum} is searched for, not computed.",
            "steps": "A sample is there at once: one noise vector, one pass through the generator.",
        },
    ),
    Family(
        key="diffusion",
        title="Diffusion and score",
        home="genzoo.zoo.diffusion",
        idea="Drown the data in noise little by little, learn to undo one little step, and begin from pure noise.",
        equation="dx = [f(x, t) − g(t)² ∇ log pₜ(x)] dt + g(t) dw",
        tractability="A bound or an estimate of the likelihood, by many network evaluations for each {datum}.",
        quality="Often the best samples a network of its size draws, paid for in steps: ten to a thousand of them.",
        stability="A regression: among the calmest objectives there are.",
        progress="{percent} % of the way from noise to data",
        lacks={
            "latents": "Its latent is a {datum} of noise, found by running the process backwards: no short code.",
        },
    ),
    Family(
        key="masked",
        title="Masked diffusion",
        home="genzoo.zoo.diffusion.masked",
        idea="Hide any {part}s of the {datum}, and learn what each may be, given the others. Begin with all hidden.",
        equation="log p(x) ≥ Σₙ 1/n · E<sub>|M|=n</sub> Σ<sub>i∈M</sub> log p(xᵢ | x outside M)",
        tractability="A bound on the likelihood, the mean over all orders in which {part}s might be written.",
        quality="Those {part}s that are drawn in one step do not heed each other: the more steps, the better.",
        stability="Maximum likelihood of a bound; only hidden {part}s teach it, so it takes more steps.",
        progress="{percent} % of the way from hidden to drawn",
        first=1,
        lacks={
            "latents": "There is no code behind the {datum}s: every {part} is drawn from any that are there already.",
            "interpolates": "There is no code behind the {datum}s, so there is no way to walk from one to another.",
            "inverts": "There is no code to go back to; the noise that decides each {part} is not unique.",
        },
    ),
    Family(
        key="two-stage",
        title="Two-stage",
        home="genzoo.zoo.two_stage",
        idea="Make few codes of each {datum}, and of codes the {datum}; then let another model learn the codes.",
        equation="p(x) = Σ<sub>z</sub> p(x | z) p(z), or ∫ p(x | z) p(z) dz",
        tractability="The likelihood is bounded: of all codes that might give a {datum}, only the encoder's count.",
        quality="Few codes make large {datum}s cheap; what the codes leave out, the decoder smooths over.",
        stability="Each stage as calm as its own objective; of a codebook, codes may fall out of use (perplexity).",
        lacks={
            "latents": "Its codes are its autoencoder's: that one encodes and decodes.",
            "interpolates": "There is nothing between one code and another.",
            "steps": "Its steps are among the codes, which are no {datum}s to look at.",
            "inverts": "A code says what the {datum} is like; what became of each {part} is drawn beside it: lost.",
        },
    ),
)
OTHER = Family(
    key="other",
    title="Of your own",
    home=None,
    idea="A model from outside the zoo: what it can do, it shows by its methods.",
    equation="p(x) = ?",
    tractability="As its methods say.",
    quality="As its figures say.",
    stability="As its author says.",
)


@dataclass(frozen=True)
class Capability:
    """Something that a model may be able to do."""

    key: str
    protocol: str  # its name in genzoo.zoo.interface
    title: str
    missing: str  # what is said of a model that cannot, unless its family has a reason


CAPABILITIES = (
    Capability("samples", "Samples", "draws new data", "It has no `sample`."),
    Capability("log_prob", "HasLogProb", "gives p(x)", "It has no likelihood."),
    Capability("anomalies", "ScoresAnomalies", "tells the odd", "It has no anomaly score."),
    Capability("completes", "Completes", "completes", "It cannot fill in what is missing."),
    Capability("latents", "HasLatents", "encodes and decodes", "It has no codes."),
    Capability("interpolates", "Interpolates", "goes between two data", "It knows no way from one datum to another."),
    Capability("inverts", "Inverts", "finds the noise behind a datum", "It cannot go back from a datum."),
    Capability("steps", "SamplesInSteps", "shows its steps", "It does not show how a sample comes about."),
)


def family_of(module: Any) -> Family:
    """By the module of its class, or of the nearest class that it extends; of two homes the inner one."""
    for cls in type(module).__mro__:
        at_home = [family for family in FAMILIES if f"{cls.__module__}.".startswith(f"{family.home}.")]
        if at_home:
            return max(at_home, key=lambda family: len(family.home or ""))
    return OTHER


def capabilities_of(module: Any) -> set[str]:
    """The keys of what the module can do."""
    from genzoo.zoo import interface

    return {c.key for c in CAPABILITIES if isinstance(module, getattr(interface, c.protocol))}


def said(sentence: str, kind: Modality) -> str:
    """What is said of a family, of data of this kind."""
    datum, part = WORDS[kind]
    return sentence.format(datum=datum, part=part)


def why_not(family: Family, key: str, kind: Modality) -> str:
    """A sentence on why a model of the family cannot do it."""
    default = next(c.missing for c in CAPABILITIES if c.key == key)
    return said(family.lacks.get(key, default), kind)


def cannot(module: Any, *keys: str) -> str:
    """A sentence on a model that lacks these capabilities: why, and what it can do instead."""
    kind = modality(module.shape, module.levels)
    lacks = " ".join(dict.fromkeys(why_not(family_of(module), key, kind) for key in keys))
    can = [c.title for c in CAPABILITIES if c.key in capabilities_of(module)]
    return f"{type(module).__name__}: {lacks} What it does: it {', '.join(can) or 'answers none of our questions'}."


def in_order(exhibits: Iterable[Any]) -> list[tuple[Family, list[Any]]]:
    """The families that are there, in the order of the table, each with its exhibits."""
    exhibits = list(exhibits)
    groups = [(family, [e for e in exhibits if e.family is family]) for family in (*FAMILIES, OTHER)]
    return [(family, members) for family, members in groups if members]
