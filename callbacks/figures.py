"""One function for each group of figures. A figure is a dictionary; `evaluation.py` says what it holds.

Collective, where there are several processes: they share out the data. Called without gradients.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor

from genzoo.callbacks.closeness import Closeness
from genzoo.callbacks.data import first_rows, split_batches, spread_rows, to_module
from genzoo.callbacks.environment import hardware
from genzoo.callbacks.likelihood import likelihood_of
from genzoo.callbacks.metrics.anomalies import ODD, PrincipalComponents, auroc
from genzoo.callbacks.metrics.extractors import FeatureExtractor
from genzoo.callbacks.metrics.modes import mode_coverage
from genzoo.callbacks.sampling import draw
from genzoo.zoo.interface import HasLogProb, Samples
from genzoo.zoo.mixins import is_conditional
from genzoo.zoo.processes import gather, share

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
    rows = partial(spread_rows, partial(split_batches, datamodule, split), num_likelihood)
    result = likelihood_of(module, track(rows(), "likelihood"), num_particles=num_particles, seed=seed)
    kind = module.log_prob_kind
    protocol = {
        "exact": "−log p(x), exact",
        "lower_bound": f"upper bound on −log p(x) with {num_particles} samples of the latents, seed {seed}",
        "estimate": f"estimate of −log p(x) with {num_particles} draws, seed {seed}",
    }[kind]
    if is_conditional(module):
        protocol += "; p(x) is the mean of p(x | class) over the classes"
    about = {"split": split, "kind": kind, "num_examples": result.num_examples}
    over = "the split" if num_likelihood is None else f"{result.num_examples} data spread evenly over the split"
    found = [
        figure("nll", result.nll, "nats", f"{protocol}; mean over {over}", **about)
        | {"standard_error": result.standard_error}
    ]
    if hasattr(datamodule, "log_density"):
        found[0] |= {
            "floor": -torch.cat([datamodule.log_density(x) for x in rows()]).mean().item(),
            "floor_name": "true density",
            "floor_protocol": f"−log p(x) of the density that the data come from; mean over {over}",
        }
    if result.bits_per_dim is not None:
        scale = result.bits_per_dim / result.nll if result.nll else 0.0
        found.append(
            figure("bits_per_dim", result.bits_per_dim, "bits/dim", f"nll / (D ln 2); {protocol}", **about)
            | {"standard_error": result.standard_error * scale}
        )
    return found


def sampling(module: Samples, seed: int, device: torch.device, num: int = 64) -> list[Figure]:
    """How long a sample takes, and how often the network runs for it."""
    draw(module.sample, num, seed)  # the first draw also allocates
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    draw(module.sample, num, seed).sum().item()  # .item() waits for the device
    seconds = (time.perf_counter() - start) / num
    protocol = f"one call of sample({num}) on {hardware(device)}"
    found = [figure("sampling_time", seconds, "s/sample", protocol, num_examples=num)]
    if (evaluations := getattr(module, "network_evaluations", None)) is not None:
        protocol = "how often one call of sample runs the network, whatever the number of samples"
        found.append(figure("network_evaluations", evaluations, "evaluations", protocol))
    return found


def accuracy(module: LightningModule, datamodule: LightningDataModule, split: str, track: Track) -> list[Figure]:
    """Of a classifier."""
    batches = track(split_batches(datamodule, split), "accuracy")
    right = seen = 0
    for _, (x, y), counts in share(batches):
        guesses = module(to_module(x, module)).argmax(1).cpu()
        if counts:
            right += int((guesses == y.cpu()).sum())
            seen += len(x)
    rights, seens = zip(*gather((right, seen)), strict=True)
    p, n = sum(rights) / sum(seens), sum(seens)
    about = {"split": split, "num_examples": n, "standard_error": (p * (1 - p) / n) ** 0.5}
    return [figure("accuracy", p, "share", "images whose likeliest class is the true one", **about)]


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
    datamodule.setup("fit")  # the floor is measured on training data
    real = Closeness(
        datamodule,
        extractor,
        split=split,
        num_samples=num_samples,
        keep=num_samples,
        device=module.device,
        cache_dir=cache_dir,
    )
    scores = real.scores(module.sample, seed=seed, track=lambda parts: track(parts, "samples"))
    floor = real.floor()
    of_classes = " of classes drawn uniformly" if is_conditional(module) else ""
    protocol = (
        f"features of {extractor.name} ({extractor.fingerprint[:12]}), {num_samples} samples{of_classes},"
        f" seed {seed}, against {{}} data of the {split} split"
    )
    whole, first = protocol.format(real.num_real), protocol.format(len(real.real))
    found = []
    for name, score in scores.items():
        unit, how = {
            real.name: ("squared feature distance", whole),
            "kid": ("squared MMD", f"{first}; cubic kernel, 100 subsets of ≤ 1000"),
            "density": ("ratio", f"{first}; k = 5"),
        }.get(name, ("share", f"{first}; k = 5"))
        found.append(figure(name, score.value, unit, how, split=split, num_examples=num_samples))
        if score.error is not None:
            found[-1]["standard_error"] = score.error
    found[0] |= {
        "floor": floor.value,
        "floor_name": "real against real",
        "floor_protocol": f"{floor.num_examples} real data of the {floor.split} split in place of the samples",
    }
    return found


def modes(module: Samples, datamodule: Any, num_samples: int, seed: int) -> list[Figure]:
    """How many of the centres that the data lie around are found."""
    centres, std = datamodule.centres, datamodule.noise_std
    found = mode_coverage(draw(module.sample, num_samples, seed), centres, std)
    says = {
        "modes": ("modes", f"of {len(centres)}, those with a sample within 3σ of their centre"),
        "high_quality": ("share", "samples within 3σ of a centre"),
        "mode_kl": ("nats", "divergence of the modes' shares of the samples from equal shares"),
    }
    about = {"num_examples": num_samples}
    return [
        figure(name, found[name], unit, f"{protocol}; {num_samples} samples, seed {seed}", **about)
        for name, (unit, protocol) in says.items()
    ]


def anomaly(
    module: Any,
    datamodule: Any,
    odd: Sequence[str] | LightningDataModule,
    num: int,
    split: str,
    track: Track,
) -> list[Figure]:
    """AUROC of the first `num` data of the split against as many odd ones, of each kind."""
    if not num:
        return []
    usual = list(rows_of(datamodule, split, num))
    if isinstance(odd, LightningDataModule):
        odd.prepare_data()
        if split != "test":
            odd.setup("fit")
        name = type(odd).__name__.removesuffix("DataModule").lower()
        sets = {name: (list(rows_of(odd, split, num)), f"data of the {split} split of {type(odd).__name__}")}
    elif getattr(datamodule, "levels", None) is not None and usual[0].ndim == 4:
        made = {name: [ODD[name](x, datamodule.levels) for x in usual] for name in odd}
        sets = {name: (batches, f"the same images made {name}") for name, batches in made.items()}
    else:
        return []
    datamodule.setup("fit")
    components = PrincipalComponents(rows_of(datamodule, "train", 10_000))

    def scores(batches: list[Tensor], what: str) -> tuple[Tensor, Tensor]:
        parts = {
            index: module.anomaly_score(to_module(x, module)).double().cpu()
            for index, x, _ in share(track(batches, what))
        }
        everyone = {index: part for share in gather(parts) for index, part in share.items()}
        return torch.cat([everyone[i] for i in range(len(batches))]), components.score(torch.cat(batches))

    own, floor = scores(usual, "anomaly")
    found = []
    for name, (batches, what) in sets.items():
        odd_own, odd_floor = scores(batches, name)
        protocol = f"ranks of the raw anomaly scores of {len(own)} data of the {split} split against {what}"
        about = {"split": split, "num_examples": len(own) + len(odd_own)}
        found.append(
            figure(f"auroc_{name}", auroc(own, odd_own), "area", protocol, **about)
            | {
                "floor": auroc(floor, odd_floor),
                "floor_name": "principal components",
                "floor_protocol": f"squared distance from the {components.num_components} first principal components"
                " of the training data",
            }
        )
    return found


def rows_of(datamodule: LightningDataModule, split: str, limit: int | None = None) -> Iterator[Tensor]:
    """The data of a split, batch by batch, every datum once; at most `limit` of them."""
    return first_rows(split_batches(datamodule, split), limit)


def figure(name: str, value: float, unit: str, protocol: str, **about: Any) -> Figure:
    """What a figure holds; `about` is split, num_examples, kind, standard_error, as they apply."""
    return {"name": name, "value": value, "unit": unit, "protocol": protocol, **about}
