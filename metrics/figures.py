"""One function for each group of figures. A figure is a dictionary; `evaluation.py` says what it holds.

Collective, where there are several processes: they share out the data. Called without gradients.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from genzoo.metrics.anomalies import ODD, AnomalyAUROC, PrincipalComponents
from genzoo.metrics.closeness import Closeness
from genzoo.metrics.data import NoOtherSplit, Rows, beside, split_batches, to_module
from genzoo.metrics.environment import hardware
from genzoo.metrics.extractors import FeatureExtractor
from genzoo.metrics.likelihood import NegativeLogLikelihood, likelihood_of
from genzoo.metrics.modes import ModeCoverage
from genzoo.zoo.codebook import codebook_figures
from genzoo.zoo.drawing import draw, supported
from genzoo.zoo.interface import HasCodes, HasLogProb, Samples
from genzoo.zoo.mixins import is_conditional
from genzoo.zoo.modality import parted, to_grid
from genzoo.zoo.processes import gather, share

# training data, at most, that the principal components are those of, and their bytes
NUM_TRAINING, TRAINING_BYTES = 10_000, 2**30

Figure = dict[str, Any]
Track = Callable[[Iterable[Any], str], Iterable[Any]]


def parameters(module: LightningModule) -> list[Figure]:
    """How many there are."""
    count = sum(p.numel() for p in module.parameters())
    return [figure("parameters", count, "parameters", "all parameters of the module")]


def likelihood(
    module: HasLogProb,
    datamodule: Any,
    split: str,
    num_particles: int,
    num_likelihood: int | None,
    seed: int,
    track: Track,
) -> list[Figure]:
    """−log p(x) over the split, or over so many data spread over it, and in bits for each dimension."""
    data = Rows(datamodule, split, num_likelihood)
    result = likelihood_of(module, track(data, "likelihood"), num_particles=num_particles, seed=seed)
    protocol = _of_likelihood(module, num_particles, seed)
    about = {"split": split, "kind": module.log_prob_kind, "num_examples": result.num_examples}
    over = "the split" if num_likelihood is None else f"{result.num_examples} data spread evenly over the split"
    nats = f"{protocol}; mean over {over}"
    found = [figure("nll", result.nll, "nats", nats, error=result.standard_error, **about)]
    if hasattr(datamodule, "log_density"):
        truth = NegativeLogLikelihood(sync_on_compute=False)  # every process looks at all of them
        for x in data:
            truth.update(datamodule.log_density(x))
        found[0] |= floor(
            truth.compute().item(),
            truth.standard_error(),
            "true density",
            f"−log p(x) of the density that the data come from; mean over {over}",
        )
    if result.bits_per_dim is not None:
        counted = "Σ nll / (ln 2 · Σ D), D the samples that are sound"
        ratio = counted if getattr(module, "modality", None) == "waveform" else "nll / (D ln 2)"
        bits, error = result.bits_per_dim, result.bits_per_dim_error
        found.append(figure("bits_per_dim", bits, "bits/dim", f"{ratio}; {protocol}", error=error, **about))
    return found


def _of_likelihood(module: HasLogProb, num_particles: int, seed: int) -> str:
    """What the number is: its kind, what the model itself says of it, and what is done with classes."""
    own = getattr(module, "log_prob_protocol", None)
    particles = f" with {num_particles} samples of the latents" if own is None else f" with {num_particles} draws"
    draws = f" with {num_particles} draws"
    if not supported(module.log_prob, num_particles=num_particles):  # and so they are as many as it likes
        particles = draws = ""
    says = {
        "exact": "−log p(x), exact",
        "lower_bound": f"upper bound on −log p(x){particles}, seed {seed}",
        "estimate": f"estimate of −log p(x){draws}, seed {seed}",
    }[module.log_prob_kind]
    if own is not None:
        says += f"; {own}"
    if is_conditional(module):
        says += f"; p(x) is the mean of p(x | class), the classes weighted {_class_protocol(module)}"
    return says


def _class_protocol(module: object) -> str:
    """How often a conditional model takes each class, as it says itself."""
    return getattr(module, "class_protocol", "uniformly")


TIMED = 64  # samples, of which the time is taken


def sampling(module: Samples, seed: int, device: torch.device) -> list[Figure]:
    """How long a sample takes, and how often the network runs for it."""
    draw(module.sample, TIMED, seed)  # the first draw also allocates
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    draw(module.sample, TIMED, seed).sum().item()  # .item() waits for the device
    seconds = (time.perf_counter() - start) / TIMED
    protocol = f"one call of sample({TIMED}) on {hardware(device)}"
    found = [figure("sampling_time", seconds, "s/sample", protocol, num_examples=TIMED)]
    if (evaluations := getattr(module, "network_evaluations", None)) is not None:
        protocol = "how often one call of sample runs the network, whatever the number of samples"
        found.append(figure("network_evaluations", evaluations, "evaluations", protocol))
    return found


def accuracy(module: LightningModule, datamodule: LightningDataModule, split: str, track: Track) -> list[Figure]:
    """Of a classifier."""
    batches = track(split_batches(datamodule, split), "accuracy")
    right = seen = 0
    for _, batch, counts in share(batches):
        x, y = parted(batch)
        if y is None:
            raise ValueError(
                f"the batches of the {split} split have no labels, of which an accuracy is: give (x, y) or a"
                ' dictionary {"x": x, "y": y}'
            )
        logits = module(to_module(x, module))
        if logits.isnan().any():  # argmax takes NaN for the largest
            raise ValueError(
                f"{type(module).__name__} gives NaN for {int(logits.isnan().any(1).sum())} of {len(x)} data."
            )
        guesses = logits.argmax(1).cpu()
        if counts:
            right += int((guesses == y.cpu()).sum())
            seen += len(x)
    rights, seens = zip(*gather((right, seen)), strict=True)
    p, n = sum(rights) / sum(seens), sum(seens)
    says = "images whose likeliest class is the true one"
    return [figure("accuracy", p, "share", says, error=(p * (1 - p) / n) ** 0.5, split=split, num_examples=n)]


def codes(module: HasCodes, datamodule: LightningDataModule, split: str, track: Track) -> list[Figure]:
    """How many of its codes the data have, how evenly, and how near to the data their codes lead back."""
    counts, errors = torch.zeros(module.num_codes, dtype=torch.int64), [torch.zeros(0, dtype=torch.float64)]
    low, high = math.inf, -math.inf
    data = Rows(datamodule, split)
    for _, x, counted in share(track(data, "codes")):
        if counted:
            x = to_module(x, module)
            counts += module.codes(x).flatten().cpu().bincount(minlength=module.num_codes)
            errors.append((module.reconstruct(x) - x).double().square().flatten(1).mean(1).cpu())
            low, high = min(low, float(x.min())), max(high, float(x.max()))
    found = codebook_figures(torch.stack(gather(counts)).sum(0))
    of = f"the {module.num_codes:,} codes"
    says = {
        "codebook_usage": ("share", f"{of} that the data have"),
        "codebook_perplexity": ("codes", f"exp of the entropy of how often the data have each of {of}"),
    }
    about: dict[str, Any] = {"split": split, "num_examples": data.total}
    rows = [figure(name, found[name].item(), unit, how, **about) for name, (unit, how) in says.items()]
    squares, decibel, peak = torch.cat(gather(torch.cat(errors))), 10 / math.log(10), "white less black"
    if getattr(module, "levels", None) is None:  # there is no white: what they span
        lows, highs = zip(*gather((low, high)), strict=True)
        squares, peak = squares / (max(highs) - min(lows)) ** 2, "the largest value less the smallest"
    if 0 < (error := squares.mean().item()) < math.inf:  # of nothing lost there is no logarithm
        how = f"−10 log₁₀ of the mean squared error of reconstructions, {peak} being 1"
        spread = decibel * squares.std().item() / math.sqrt(len(squares)) / error
        rows.append(figure("psnr", -decibel * math.log(error), "dB", how, error=spread, **about))
    return rows


#: the scores of `closeness`: unit, and what is done with the features
SCORES = {
    "fid": ("squared feature distance", ""),
    "frechet": ("squared feature distance", ""),
    "kid": ("squared MMD", "; cubic kernel, all pairs"),
    "precision": ("share", "; k = 5"),
    "recall": ("share", "; k = 5"),
    "density": ("ratio", "; k = 5"),
    "coverage": ("share", "; k = 5"),
}


def closeness(
    module: Any,
    datamodule: LightningDataModule,
    extractor: FeatureExtractor,
    split: str,
    num_samples: int,
    seed: int,
    track: Track,
    cache_dir: str | None,
) -> list[Figure]:
    """How close the samples are to the split's data, as the extractor sees them."""
    real = Closeness(
        datamodule, extractor, split=split, num_samples=num_samples, device=module.device, cache_dir=cache_dir
    )
    scores = real.scores(module.sample, seed=seed, track=lambda parts: track(parts, "samples"))
    errors = real.errors()
    of_classes = f" of classes drawn {_class_protocol(module)}" if is_conditional(module) else ""
    seen = (
        f"features of {extractor.name} ({extractor.fingerprint[:12]}), {num_samples} samples{of_classes}, seed {seed}"
    )
    whole, some = Rows(datamodule, split), Rows(datamodule, split, num_samples)
    found = []
    for name, value in scores.items():
        unit, how = SCORES[name]
        protocol = f"{seen}, against {whole if name == real.name else some}{how}"  # the distance takes them all
        about = {"split": split, "num_examples": num_samples}
        found.append(figure(name, value, unit, protocol, error=errors.get(name), **about))
    try:
        least = real.floor()
    except NoOtherSplit as why:
        rank_zero_warn(f"evaluate: without a floor, which other real data would give ({why}), and memorisation.")
        return found
    real_data = str(least.data).replace(" data", " real data", 1)
    found[0] |= floor(least.value, least.error, "real against real", f"{real_data} in place of the samples")
    if (copied := real.memorisation()) is not None:
        of = f"the nearest of {least.data} is nearer to a sample than to one of {some}"
        # who draws from all the training data is at one that is looked at as often as these are among them
        by_heart = 0.5 + 0.5 * min(1.0, num_samples / least.data.total)
        knows = f"0.5 if the model knows the distribution, {by_heart:.3g} if only the training data"
        protocol = f"{seen}: how often {of}; {knows}"
        value, error = copied
        found.append(
            figure("memorisation", value, "share", protocol, error=error, split=split, num_examples=num_samples)
        )
    return found


def modes(module: Samples, datamodule: Any, num_samples: int, seed: int) -> list[Figure]:
    """How many of the centres that the data lie around are found."""
    coverage = ModeCoverage(datamodule.centres, datamodule.noise_std, sync_on_compute=False)  # all draw the same
    coverage.update(draw(module.sample, num_samples, seed))
    found, errors = coverage.compute(), coverage.standard_error()
    says = {
        "modes": ("modes", f"of {len(datamodule.centres)}, those with a sample within 3σ of their centre"),
        "high_quality": ("share", "samples within 3σ of a centre"),
        "mode_kl": ("nats", "divergence of the modes' shares of the samples from equal shares"),
    }
    drawn = f"{num_samples} samples, seed {seed}"
    return [
        figure(name, found[name].item(), unit, f"{how}; {drawn}", error=errors.get(name), num_examples=num_samples)
        for name, (unit, how) in says.items()
    ]


def anomaly(
    module: Any,
    datamodule: Any,
    odd: Sequence[str] | LightningDataModule,
    num: int,
    split: str,
    track: Track,
) -> list[Figure]:
    """AUROC of `num` data of the split, spread over it, against as many odd ones, of each kind."""
    if not num:
        return []
    data = Rows(datamodule, split, num)
    usual = list(data)
    paired = not isinstance(odd, LightningDataModule)
    if isinstance(odd, LightningDataModule):
        name = type(odd).__name__.removesuffix("DataModule").lower()
        others = Rows(odd, split, num)
        batches, what = list(others), f"{others} of {type(odd).__name__}"
        levels = getattr(datamodule, "levels", None)
        if usual[0].ndim == 4 and levels is not None and getattr(odd, "levels", levels) != levels:
            batches, what = [to_grid(x, levels) for x in batches], f"{what}, rounded to {levels} levels"
        sets = {name: (batches, what)}
    elif getattr(datamodule, "levels", None) is not None and usual[0].ndim == 4:
        made = {name: [ODD[name](x, datamodule.levels) for x in usual] for name in odd}
        sets = {name: (batches, f"the same images made {name}") for name, batches in made.items()}
    else:
        return []
    fits = max(2, TRAINING_BYTES // (4 * usual[0][0].numel()))
    try:
        training = beside(datamodule, "train", min(NUM_TRAINING, fits))
        components = PrincipalComponents(training)
    except NoOtherSplit as why:
        rank_zero_warn(f"evaluate: anomalies without their floor, principal components of training data ({why}).")
        components = None
    own = {name: AnomalyAUROC(paired=paired) for name in sets}
    trivial = {name: AnomalyAUROC(paired=paired) for name in sets}

    def score(batches: list[Tensor], what: str, among: Iterable[str], is_odd: bool) -> None:
        for _, x, counts in share(track(batches, what)):
            scores = module.anomaly_score(to_module(x, module))
            if counts:
                for name in among:
                    own[name].update(scores, odd=is_odd)
                    if components is not None:
                        trivial[name].update(components.score(x), odd=is_odd)

    def least_of(name: str) -> Figure:
        if components is None:
            return {}
        how = f"squared distance from the {components.num_components} first principal components of {training}"
        return floor(trivial[name].compute().item(), trivial[name].standard_error(), "principal components", how)

    score(usual, "anomaly", sets, False)
    for name, (batches, _) in sets.items():
        score(batches, name, [name], True)
    return [
        figure(
            f"auroc_{name}",
            own[name].compute().item(),
            "area",
            f"ranks of the raw anomaly scores of {data} against {what}",
            split=split,
            num_examples=_count(usual) + _count(batches),
            error=own[name].standard_error(),
        )
        | least_of(name)
        for name, (batches, what) in sets.items()
    ]


def _count(batches: list[Tensor]) -> int:
    return sum(map(len, batches))


# ---- what a figure holds


def figure(name: str, value: float, unit: str, protocol: str, *, error: float | None = None, **about: Any) -> Figure:
    """What a figure holds; `about` is split, num_examples and kind, as they apply.

    An error of 0, of a share of 0 or 1 for example, is none that was measured: the figure has none then.
    """
    found = {"name": name, "value": value, "unit": unit, "protocol": protocol, **about}
    return found | ({"standard_error": error} if error is not None and error > 0 else {})


def floor(value: float, error: float, name: str, protocol: str) -> Figure:
    """What a figure holds of its floor, with the floor's own error."""
    found = {"floor": value, "floor_name": name, "floor_protocol": protocol}
    return found | ({"floor_standard_error": error} if error > 1e-12 * abs(value) else {})  # less is rounding
