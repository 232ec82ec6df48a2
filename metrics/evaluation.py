"""The figures of a trained model, each with what it means: the content of an entry's `metrics.json`.

One protocol for all models of a data set: what is asked of the model depends on its capabilities alone, and how it
is measured on its data, whose datamodule may state a `protocol`. One small function for each figure. A figure is a
dictionary: name, value, unit, split, protocol, num_examples, and where they apply standard_error, kind and floor,
with what the floor is (what a perfect model, for an AUROC: a trivial one, would score) and floor_standard_error.

A standard error is the standard deviation of the figure under new draws of everything that was drawn: the samples,
and the data of the split. A figure of which none is known has none. The data are taken for independent of each other;
where they are not, as variants of one drawing or successive windows of one text, the figure of other data of the kind
would be off by several times as much.
"""

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from operator import itemgetter
from typing import Any, Literal, TypedDict

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from genzoo.metrics import figures
from genzoo.metrics.anomalies import ODD
from genzoo.metrics.closeness import check_apart, check_extractor
from genzoo.metrics.data import SPLITS, Rows, at_most, first_batch, set_up_to_fit
from genzoo.metrics.environment import environment
from genzoo.metrics.extractors import AUTO, FeatureExtractor, fitting
from genzoo.zoo.drawing import seeded
from genzoo.zoo.interface import HasCodes, HasLogProb, Samples, ScoresAnomalies
from genzoo.zoo.naming import NamingMixin
from genzoo.zoo.precision import without_tf32
from genzoo.zoo.processes import rank
from genzoo.zoo.settling import evaluating

#: the groups of figures, in the order in which they are measured
GROUPS = ("likelihood", "sampling", "accuracy", "codes", "closeness", "modes", "anomaly")
#: which arguments of `evaluate` figures depend on, by their names; what is odd, a figure's name itself says
DEPENDS: dict[tuple[str, ...], set[str]] = {
    ("parameters", "sampling_time", "network_evaluations"): set(),
    ("nll", "bits_per_dim"): {"split", "num_particles", "num_likelihood", "seed"},
    ("accuracy", "codebook_usage", "codebook_perplexity", "psnr"): {"split"},
    (*figures.SCORES, "memorisation"): {"split", "extractor", "num_samples", "seed"},
    ("modes", "high_quality", "mode_kl"): {"num_samples", "seed"},
    ("auroc_*",): {"split", "num_odd", "seed"},
}
#: how many data have a fifth neighbour each, which coverage asks for
LEAST = 6
#: what a datamodule's `protocol`, and then the caller, may say otherwise
PROTOCOL: dict[str, Any] = {
    "num_particles": 100,
    "num_likelihood": None,
    "num_samples": 10_000,
    "extractor": AUTO,
    "odd": ["faint", "erased", "flipped", "shuffled"],
    "num_odd": 500,
}


class Evaluation(TypedDict, total=False):
    """Arguments of `evaluate` that a recipe can state."""

    split: Literal["train", "val", "test"]
    num_particles: int | None
    num_likelihood: int | None
    num_samples: int | None
    extractor: str | nn.Module | None
    odd: list[str] | LightningDataModule | None
    num_odd: int | None
    seed: int
    only: list[str]
    progress: bool
    weights_path: str | None
    cache_dir: str | None


def evaluate(
    module: LightningModule,
    datamodule: LightningDataModule,
    *,
    split: str = "test",
    num_particles: int | None = None,
    num_likelihood: int | None = None,
    num_samples: int | None = None,
    extractor: str | nn.Module | None = None,
    odd: Sequence[str] | LightningDataModule | None = None,
    num_odd: int | None = None,
    seed: int = 0,
    only: Sequence[str] = GROUPS,
    device: torch.device | str | None = None,
    progress: bool = True,
    weights_path: str | None = None,
    cache_dir: str | None = None,
) -> dict[str, Any]:
    """Measures what the module can do on a split of real data. Collective where there are several processes.

    Every module: its number of parameters. Then, by group:

    * likelihood, with `log_prob`: nats and, of discrete data, bits per dimension; where the data's density is known
      (`log_density`), with its entropy as the floor.
    * sampling, with `sample`: seconds for each sample, and network evaluations for one.
    * accuracy, without `sample` but with `features` (a classifier).
    * codes, with `codes`, its own or its autoencoder's: the share that the split uses, their perplexity, and the peak
      signal-to-noise ratio of reconstructions.
    * closeness, with `sample` and an extractor: the Fréchet distance with its floor, KID, precision, recall, density,
      coverage and memorisation.
    * modes, with `sample`, of data with `centres`: how many of them are found, and the share of samples near one.
    * anomaly, with `anomaly_score`: the AUROC against odd data, beside that of a principal component analysis.

    An argument that is None is what the datamodule's `protocol` says, a mapping, or else the default named here.

    Args:
        module: left as it was: its mode, its device, its weights.
        datamodule: of the data; set up if it is not yet.
        split: "train", "val" or "test", whole.
        num_particles: K of a likelihood bound (100).
        num_likelihood: of how many data of the split the likelihood is measured, at most, spread over it (all).
        num_samples: how many samples the distances are measured on (10,000).
        extractor: what gives the features: a zoo entry's name, "inception", or a module ("auto": the entry that fits
            the data, see `genzoo.metrics.extractors.fitting`; no distances where there is none).
        odd: names of `ODD`, ways to make odd images of the data (of images "faint" and "erased", simpler than they,
            "flipped", as complex, and "shuffled", more complex); or a datamodule whose data of that split are odd.
        num_odd: how many data, usual and odd, the AUROC is measured on, at most (500); 0 leaves anomalies out.
        seed: of all noise: the same seed gives the same figures.
        only: measure these groups alone.
        device: where to compute; None is where the module is.
        progress: show a progress bar.
        weights_path: a file with Inception's weights.
        cache_dir: where statistics of real data are kept; None is $GENZOO_CACHE, or else ~/.cache/genzoo.

    Returns:
        {"figures": [...], "evaluation": {the arguments that give these figures again}, "environment": {...}}.

    Raises:
        ValueError: if there is no such split, group or way to make data odd, a number is out of its range, an
            extractor is given for a module without `sample` or makes no features of the data; before anything is
            measured.
    """
    how = checked_arguments(
        module,
        datamodule,
        split=split,
        num_particles=num_particles,
        num_likelihood=num_likelihood,
        num_samples=num_samples,
        extractor=extractor,
        odd=odd,
        num_odd=num_odd,
        seed=seed,
        only=only,
        device=device,
    )
    track = partial(_tracked, progress=progress)
    datamodule.prepare_data()
    if split != "test":
        set_up_to_fit(datamodule)
    extract = checked_data(module, datamodule, how, split, only, weights_path)
    compares = extract is not None or ("anomaly" in only and isinstance(module, ScoresAnomalies))
    if split == "test" and compares:  # with training data, too
        set_up_to_fit(datamodule)
    if extract is None:
        how.pop("extractor", None)  # what nothing was measured with is not stated
    found = figures.parameters(module)
    with measuring(module, device), seeded(seed), torch.no_grad():
        if "likelihood" in only and isinstance(module, HasLogProb):
            found += figures.likelihood(
                module, datamodule, split, how["num_particles"], how["num_likelihood"], seed, track
            )
        if "sampling" in only and isinstance(module, Samples):
            found += figures.sampling(module, seed, module.device)
        classifies = hasattr(module, "features") and getattr(module, "num_classes", None) is not None
        if "accuracy" in only and not isinstance(module, Samples) and classifies:
            found += figures.accuracy(module, datamodule, split, track)
        coder = getattr(module, "autoencoder", module)
        if "codes" in only and isinstance(coder, HasCodes):
            found += figures.codes(coder, datamodule, split, track)
        if extract is not None:
            extract.to(module.device)
            found += figures.closeness(module, datamodule, extract, split, how["num_samples"], seed, track, cache_dir)
        if "modes" in only and isinstance(module, Samples) and getattr(datamodule, "centres", None) is not None:
            found += figures.modes(module, datamodule, how["num_samples"], seed)
        if "anomaly" in only and isinstance(module, ScoresAnomalies):
            found += figures.anomaly(module, datamodule, how["odd"], how["num_odd"], split, track)
    for name, value in ((figure["name"], figure["value"]) for figure in found if not math.isfinite(figure["value"])):
        rank_zero_warn(f"evaluate: {name} is {value}, which no file can state: it is left out.")
    found = [figure for figure in found if math.isfinite(figure["value"])]
    for figure in found:
        if not math.isfinite(figure.get("floor", 0.0)):
            rank_zero_warn(
                f"evaluate: the floor of {figure['name']} is {figure['floor']}, which no file can state: it is left"
                " out."
            )
            for name in [name for name in figure if name.startswith("floor")]:
                del figure[name]
        if math.isnan(figure.get("standard_error", 0.0)):  # of a single datum or subset there is none
            del figure["standard_error"]
    return {"figures": found, "evaluation": _stated(split, how, seed), "environment": environment()}


def unmeasured(module: LightningModule, datamodule: LightningDataModule, **arguments: Any) -> dict[str, Any]:
    """What `evaluate` would return with these arguments, but for the figures: how they are to be measured.

    Raises:
        ValueError: for arguments that `evaluate` would refuse.
    """
    how = checked_arguments(module, datamodule, **arguments)
    split, seed = arguments.get("split", "test"), arguments.get("seed", 0)
    return {"figures": [], "evaluation": _stated(split, how, seed), "environment": environment()}


# ---- how


def _stated(split: str, how: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The arguments of `evaluate` that give the same figures again, as far as a file can state them."""
    return {name: value for name, value in {"split": split, **how, "seed": seed}.items() if _can_be_stated(value)}


def arguments_of(name: str) -> set[str]:
    """The arguments of `evaluate` that the figure of that name depends on: figures of other ones do not compare."""
    known = (arguments for names, arguments in DEPENDS.items() if any(fnmatch(name, pattern) for pattern in names))
    return next(known, {*PROTOCOL, "split", "seed"})


def remeasured(before: Mapping[str, Any], now: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """An entry's metrics with figures that were measured anew in place of those of their names.

    Those that stay state the environment that they were measured in, if this is another one.

    Args:
        before: the contents of its metrics.json.
        now: what `evaluate` returned.
        origin: of the new figures, for the error.

    Raises:
        ValueError: they were measured otherwise than those that stay.
    """
    key = itemgetter("name")
    new = {key(figure): figure for figure in now["figures"]}
    names = dict.fromkeys([*map(key, before.get("figures", [])), *new])
    old = {key(figure): dict(figure) for figure in before.get("figures", []) if key(figure) not in new}
    asked, then = now["evaluation"], before.get("evaluation", {})
    changed = {name for name in then.keys() & asked.keys() if then[name] != asked[name]}  # the others were not needed
    if stale := {name: both for name in old if (both := sorted(changed & arguments_of(name)))}:
        raise ValueError(
            f"{origin} was measured with another {', '.join(sorted(set().union(*stale.values())))} than the figures"
            f" that stay ({', '.join(stale)}): measure all of them again, or give the same arguments"
        )
    for figure in old.values():
        if figure.setdefault("environment", before.get("environment")) in (None, now["environment"]):
            del figure["environment"]
    return {
        **before,
        **now,
        "figures": [new.get(name) or old[name] for name in names],
        "evaluation": {**then, **asked},
    }


def checked_arguments(module: LightningModule, datamodule: LightningDataModule, **arguments: Any) -> dict[str, Any]:
    """How a module is measured with these arguments of `evaluate`: its protocol.

    Raises:
        ValueError: for arguments that there are not, or that nothing can be measured with. It looks at no data.
    """
    try:
        bound = inspect.signature(evaluate).bind(module, datamodule, **arguments)
    except TypeError as error:
        raise ValueError(f"evaluate: {error}.") from None
    bound.apply_defaults()
    asked = bound.arguments
    if asked["split"] not in SPLITS:
        raise ValueError(f"evaluate: split={asked['split']!r} must be one of {', '.join(SPLITS)}.")
    if asked["extractor"] is not None and not isinstance(module, Samples):
        raise ValueError(f"evaluate: {type(module).__name__} has no `sample`, so there is nothing for an extractor.")
    if isinstance(asked["only"], str):
        raise ValueError(f"evaluate: only={asked['only']!r}: give a list of some of {', '.join(GROUPS)}.")
    if unknown := set(asked["only"]) - set(GROUPS):
        raise ValueError(f"evaluate: there is no group {sorted(unknown)}; there are {', '.join(GROUPS)}.")
    if not isinstance(asked["seed"], int) or not 0 <= asked["seed"] < 2**32:
        raise ValueError(f"evaluate: seed is {asked['seed']!r}, but must be a whole number from 0 to 2³² − 1.")
    try:
        torch.device("cpu" if asked["device"] is None else asked["device"])
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"evaluate: device={asked['device']!r}: {str(error).splitlines()[0]}.") from None
    how = protocol_for(datamodule, {name: asked[name] for name in PROTOCOL if asked[name] is not None})
    if not isinstance(module, Samples):
        del how["extractor"]  # what nothing is measured with is not stated
    return how


def checked_data(
    module: LightningModule,
    datamodule: LightningDataModule,
    how: Mapping[str, Any],
    split: str,
    only: Sequence[str],
    weights_path: str | None,
    *,
    learns: bool = False,
) -> FeatureExtractor | None:
    """The extractor, if distances are measured; after a look at the first of the data, which are set up.

    A module that `learns` these data will call their classes as they do.

    Raises:
        ValueError: if there is no such split, or the extractor makes no features of its data; if there are too few.
    """
    if not set(only) & {"likelihood", "accuracy", "codes", "closeness", "anomaly"}:
        return None
    x = first_batch(datamodule, split, "evaluate: split")
    if isinstance(module, NamingMixin):
        looks = "accuracy" in only and not isinstance(module, Samples) and not learns
        module.check_source(datamodule, but=() if looks else ("class_names",))
    odd = how["odd"]
    asks = "anomaly" in only and isinstance(module, ScoresAnomalies) and how["num_odd"]
    if asks and isinstance(odd, LightningDataModule):
        odd.prepare_data()
        if split != "test":
            set_up_to_fit(odd)
        if (shape := first_batch(odd, split, "evaluate: split of odd").shape[1:]) != x.shape[1:]:
            raise ValueError(
                f"evaluate: the data are of shape {tuple(x.shape[1:])}, but those of odd, {type(odd).__name__}, of"
                f" {tuple(shape)}."
            )
    if "closeness" not in only or not isinstance(module, Samples) or how["extractor"] is None:
        return None
    check_apart(how["extractor"], module)
    extractor = FeatureExtractor(how["extractor"], weights_path)
    check_extractor(extractor, x)
    if how["num_samples"] < LEAST:
        raise ValueError(
            f"evaluate: num_samples is {how['num_samples']}, but distances are those of at least {LEAST} samples."
        )
    if (num := at_most(Rows(datamodule, split), LEAST)) < LEAST:
        raise ValueError(
            f"evaluate: distances are measured against at least {LEAST} data, but the {split} split has {num}: give"
            " it more, of a folder or a table by a larger test_fraction, or measure other groups alone (`only`)."
        )
    return extractor


def protocol_for(datamodule: LightningDataModule, given: Mapping[str, Any]) -> dict[str, Any]:
    """How these data are measured: as `given`, else as the datamodule states, else as `PROTOCOL` does.

    Raises:
        ValueError: for what could not be measured, before anything is.
    """
    stated = getattr(datamodule, "protocol", {})
    how = PROTOCOL | dict(stated) | dict(given)
    if how["extractor"] == AUTO:
        how["extractor"] = fitting(stated, getattr(datamodule, "shape", ()))
    for name in ("num_particles", "num_likelihood", "num_samples", "num_odd"):
        least = 0 if name == "num_odd" else 1
        if how[name] is None and name == "num_likelihood":
            continue
        if not isinstance(how[name], int):
            raise ValueError(f"evaluate: {name} is {how[name]!r}, but must be a whole number.")
        if how[name] < least:
            raise ValueError(f"evaluate: {name} is {how[name]}, but must be at least {least}.")
    odd = how["odd"]
    if not isinstance(odd, LightningDataModule) and (isinstance(odd, str) or not set(odd) <= ODD.keys()):
        raise ValueError(
            f"evaluate: odd is {odd!r}, but must be a list of some of {', '.join(ODD)}; or a datamodule of odd data."
        )
    return how


@contextmanager
def measuring(module: LightningModule, device: torch.device | str | None = None) -> Iterator[None]:
    """Evaluation mode, on the device, all bits of the weights' own precision; then all as it was before."""
    home = module.device
    module.to(home if device is None else device)
    try:
        with evaluating(module), without_tf32():
            yield
    finally:
        module.to(home)


def _tracked(items: Iterable[Any], what: str, progress: bool) -> Iterable[Any]:
    if not progress or rank() != 0:
        return items
    from rich.progress import track

    return track(items, description=f"{what:>12}", transient=True)


def _can_be_stated(value: Any) -> bool:
    """Whether a file can state it: a live module or datamodule it cannot."""
    return value is not None and not isinstance(value, nn.Module | LightningDataModule)
