"""The figures of a trained model, each with what it means: the content of an entry's `metrics.json`.

One small function for each figure. A figure is a dictionary: name, value, unit, split, protocol,
num_examples, and where they apply standard_error, kind and floor.
"""

import platform
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn

from genzoo.callbacks.data import first_rows, split_batches, to_module
from genzoo.callbacks.likelihood import likelihood_of
from genzoo.callbacks.metrics.extractors import FeatureExtractor
from genzoo.callbacks.metrics.features import features_of, real_features
from genzoo.callbacks.metrics.frechet import FrechetReference
from genzoo.callbacks.metrics.manifold import kernel_distance, manifold_scores
from genzoo.callbacks.metrics.processes import gather, rank, share
from genzoo.callbacks.sampling import blocks, draw, seeded
from genzoo.version import __version__
from genzoo.zoo.interface import HasLogProb, Samples

Figure = dict[str, Any]


def evaluate(
    module: LightningModule,
    datamodule: LightningDataModule,
    *,
    split: str = "test",
    num_particles: int = 100,
    num_samples: int = 10_000,
    extractor: str | nn.Module | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
    weights_path: str | None = None,
    cache_dir: str | None = None,
) -> dict[str, Any]:
    """Measures what the module can do on a split of real data. Collective where there are several processes.

    Every module: its number of parameters. With `log_prob`: nats and bits per dimension. With `sample`:
    seconds per sample and, given an extractor, the Fréchet distance with its floor, KID, precision, recall,
    density and coverage. Without `sample` but with `features` (a classifier): accuracy.

    Args:
        module: left as it was: its mode, its device, its weights.
        datamodule: of the data; set up if it is not yet.
        split: "train", "val" or "test", whole.
        num_particles: K of a likelihood bound.
        num_samples: how many samples the distances are measured on.
        extractor: what gives the features: a zoo entry's name, "inception", or a module.
        seed: of all noise: the same seed gives the same figures.
        device: where to compute; None is where the module is.
        progress: show a progress bar.
        weights_path: a file with Inception's weights.
        cache_dir: where statistics of real data are kept; None is $GENZOO_CACHE, or else ~/.cache/genzoo.

    Returns:
        {"figures": [...], "evaluation": {the arguments that give these figures again}, "environment": {...}}.

    Raises:
        ValueError: if there is no such split, or an extractor is given for a module without `sample`.
    """
    if extractor is not None and not isinstance(module, Samples):
        raise ValueError(f"evaluate: {type(module).__name__} has no `sample`, so there is nothing for an extractor.")
    figures = [_parameters(module)]
    datamodule.prepare_data()
    if split != "test" or extractor is not None:  # the floor is measured on training data
        datamodule.setup("fit")
    with _measuring(module, device), seeded(seed), torch.inference_mode():
        rows = partial(_rows, datamodule, split)
        if isinstance(module, HasLogProb):
            batches = _tracked(rows(), "likelihood", progress)
            figures += _likelihood(module, batches, split, num_particles, seed)
        if isinstance(module, Samples):
            figures.append(_sampling_time(module, seed, module.device))
        elif hasattr(module, "features"):
            labelled = _tracked(split_batches(datamodule, split), "accuracy", progress)
            figures.append(_accuracy(module, labelled, split))
        if extractor is not None and isinstance(module, Samples):
            features = FeatureExtractor(extractor, weights_path).to(module.device)
            figures += _distances(
                module, datamodule, features, module.device, split, num_samples, seed, progress, cache_dir
            )
    arguments = {"split": split, "num_particles": num_particles, "num_samples": num_samples, "seed": seed}
    if isinstance(extractor, str):  # a live module cannot be stated
        arguments["extractor"] = extractor
    return {"figures": figures, "evaluation": arguments, "environment": environment()}


# ---- the figures


def _parameters(module: LightningModule) -> Figure:
    count = sum(p.numel() for p in module.parameters())
    return _figure("parameters", count, "parameters", "all parameters of the module")


def _likelihood(
    module: HasLogProb,
    batches: Iterable[Tensor],
    split: str,
    num_particles: int,
    seed: int,
) -> list[Figure]:
    result = likelihood_of(module, batches, num_particles=num_particles, seed=seed)
    kind = module.log_prob_kind
    protocol = {
        "exact": "−log p(x), exact",
        "lower_bound": f"upper bound on −log p(x) with {num_particles} samples of the latents, seed {seed}",
        "estimate": f"estimate of −log p(x) with {num_particles} draws, seed {seed}",
    }[kind]
    about = {"split": split, "kind": kind, "num_examples": result.num_examples}
    figures = [
        _figure("nll", result.nll, "nats", f"{protocol}; mean over the split", **about)
        | {"standard_error": result.standard_error}
    ]
    if result.bits_per_dim is not None:
        scale = result.bits_per_dim / result.nll if result.nll else 0.0
        figures.append(
            _figure("bits_per_dim", result.bits_per_dim, "bits/dim", f"nll / (D ln 2); {protocol}", **about)
            | {"standard_error": result.standard_error * scale}
        )
    return figures


def _sampling_time(module: Samples, seed: int, device: torch.device, num: int = 64) -> Figure:
    draw(module.sample, num, seed)  # the first draw also allocates
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    draw(module.sample, num, seed).sum().item()  # .item() waits for the device
    seconds = (time.perf_counter() - start) / num
    protocol = f"one call of sample({num}) on {hardware(device)}"
    return _figure("sampling_time", seconds, "s/sample", protocol, num_examples=num)


def _accuracy(module: LightningModule, batches: Iterable[Any], split: str) -> Figure:
    right = seen = 0
    for _, (x, y), counts in share(batches):
        guesses = module(to_module(x, module)).argmax(1).cpu()
        if counts:
            right += int((guesses == y.cpu()).sum())
            seen += len(x)
    rights, seens = zip(*gather((right, seen)), strict=True)
    p, n = sum(rights) / sum(seens), sum(seens)
    about = {"split": split, "num_examples": n, "standard_error": (p * (1 - p) / n) ** 0.5}
    return _figure("accuracy", p, "share", "images whose likeliest class is the true one", **about)


def _distances(
    module: Samples,
    datamodule: LightningDataModule,
    extractor: FeatureExtractor,
    device: torch.device,
    split: str,
    num_samples: int,
    seed: int,
    progress: bool,
    cache_dir: str | None,
) -> list[Figure]:
    look = partial(real_features, extractor=extractor, device=device, cache_dir=cache_dir)
    statistics, real = look(partial(_rows, datamodule, split), keep=num_samples)
    reference = FrechetReference(statistics)
    other = "val" if split == "train" else "train"
    others, _ = look(partial(_rows, datamodule, other, num_samples))
    parts = _tracked(blocks(num_samples, min(500, num_samples), seed), "samples", progress)
    draws = (partial(draw, module.sample, size, block) for _, size, block in parts)
    samples, fake = features_of(draws, extractor, keep=num_samples, device=device)
    if device.type == "cuda":  # float64 distances are quick there
        real, fake = real.to(device), fake.to(device)
    protocol = (
        f"features of {extractor.name} ({extractor.fingerprint[:12]}), {num_samples} samples, seed {seed},"
        f" against {{}} data of the {split} split"
    )
    about = {"split": split, "num_examples": num_samples}
    whole, first = protocol.format(statistics.count), protocol.format(len(real))
    name = "fid" if extractor.is_inception else "frechet"
    floor = {
        "floor": reference.distance(others),
        "floor_protocol": f"{others.count} real data of the {other} split in place of the samples",
    }
    kid, error = kernel_distance(real, fake, seed=seed)
    return [
        _figure(name, reference.distance(samples), "squared feature distance", whole, **about) | floor,
        _figure("kid", kid, "squared MMD", f"{first}; cubic kernel, 100 subsets of ≤ 1000", **about)
        | {"standard_error": error},
        *(
            _figure(score, value, "share" if score != "density" else "ratio", f"{first}; k = 5", **about)
            for score, value in manifold_scores(real, fake).items()
        ),
    ]


def _figure(name: str, value: float, unit: str, protocol: str, **about: Any) -> Figure:
    return {"name": name, "value": value, "unit": unit, "protocol": protocol, **about}


# ---- where they were measured


def environment() -> dict[str, str | None]:
    """Versions, and the commit of genzoo where it runs from a clone ("+" marks uncommitted changes)."""
    return {
        "commit": _commit(),
        "genzoo": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }


def hardware(device: torch.device) -> str:
    """What the device is, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()})" if device.type == "cpu" else device.type


def _commit() -> str | None:
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():  # installed as a wheel, perhaps inside somebody else's repository
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or a clone without commits
        return None
    return described.stdout.strip()


# ---- how


@contextmanager
def _measuring(module: LightningModule, device: torch.device | str | None) -> Iterator[None]:
    """Evaluation mode, on the device; then every submodule's mode and the device as they were."""
    modes, home = [(m, m.training) for m in module.modules()], module.device
    module.to(home if device is None else device).eval()
    try:
        yield
    finally:
        module.to(home)
        for submodule, training in modes:
            submodule.training = training


def _rows(datamodule: LightningDataModule, split: str, limit: int | None = None) -> Iterator[Tensor]:
    return first_rows(split_batches(datamodule, split), limit)


def _tracked(items: Iterable[Any], what: str, progress: bool) -> Iterable[Any]:
    if not progress or rank() != 0:
        return items
    from rich.progress import track

    return track(items, description=f"{what:>12}", transient=True)
