"""Every embedded entry: whole, within its size, and as good as it says.

Entries of scikit-learn's digits are measured again in full, but for two. Those of other data need them: set
GENZOO_DATA to the folder that holds them (that of torchvision's `root`), as `.ci/run` does where they lie beside the
clone; `make test` then measures of each as much as a few seconds allow, and `pytest -m slow` all, as published.
"""

import inspect
import math
import os
import platform
import re
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import genzoo
from genzoo import recipes
from genzoo.callbacks import evaluate
from genzoo.datamodules import DataModule
from genzoo.metrics import FrechetDistance
from genzoo.metrics.data import split_batches
from genzoo.metrics.extractors import FeatureExtractor
from genzoo.zoo import FlowMatching, ScoreModel
from genzoo.zoo.drawing import draw
from genzoo.zoo.hub import Entry
from genzoo.zoo.hub.building import build, exported
from genzoo.zoo.interface import HasCodes, HasLogProb, Samples

ENTRIES = genzoo.list_models()
# But for those of which a likelihood is the solution of an equation for each digit: they are among the others.
EQUATIONS = {"digits/flow-matching", "digits/score"}
ON_DIGITS = [
    entry
    for entry in ENTRIES
    if entry.config["data"]["class_path"].endswith(".DigitsDataModule") and entry.name not in EQUATIONS
]
ON_OTHERS = [entry for entry in ENTRIES if entry not in ON_DIGITS]
OF_THE_MODEL = {"parameters", "sampling_time", "network_evaluations", "modes", "high_quality", "mode_kl"}
MEASURED_ANEW = {"sampling_time"}  # a property of the machine, too
OF_THE_DATA = {"parameters", "nll", "bits_per_dim", "accuracy", "codebook_usage", "codebook_perplexity", "psnr"}
# Of how many data of the test split `make test` measures the likelihood: of so many that no entry takes more than
# ten seconds of one core. Most models take a few milliseconds for a datum; those named here 0.1 seconds or
# more, because they ask for each of ten classes, or draw 5,000 samples. Each number divides that of the data
# published: those measured, spread over the split, are then among them.
FEW = {
    "digits/flow-matching": 20,
    "digits/score": 20,
    "emoji/latent-gpt": 50,
    "emoji/pixelcnn": 50,
    "emoji/vae": 20,
    "fashion/masked": 10,
    "fashion/vae": 25,
    "mnist/ddpm": 10,
    "mnist/masked": 25,
    "mnist/score": 10,
    "mnist/iwae": 25,
    "fsdd/wavenet": 10,
    "shakespeare/masked": 10,
}
MANY = 250  # of all others
# Those that solve an equation for each class take 5 seconds for a datum, in as many steps as are published. Of so few
# data the mean says nothing of the whole, so here is what it was when all were measured: nats, of the first datum of
# the split and the middle one, in `FEW_STEPS`.
FEW_STEPS = 6
OF_TWO = {
    "cifar10/dit": 5740.75,
    "cifar10/flow-matching": 5906.073,
    "cifar10/latent-dit": 10444.78,
    "emoji/flow-matching": 5071.758,
    "emoji/latent-flow": 12057.044,
    "fashion/flow-matching": 1563.992,
    "mnist/flow-matching": 657.076,
}
# Nor do 500 data say what all do of a distance of samples, or of an accuracy; here is what they said then.
OF_500 = {
    "cifar10/classifier": 0.852,
    "cifar10/gan": 41.9226,
    "emoji/ae": 134.271,
    "emoji/gan": 66.1865,
    "fashion/classifier": 0.936,
    "fashion/gan": 21.1557,
    "mnist/ae": 58.3287,
    "mnist/classifier": 0.996,
    "mnist/dae": 95.8621,
    "mnist/dcgan": 14.9327,
    "mnist/wgan-gp": 21.6325,
}
# Data that are a folder of files, of which the entry does not say where it lies: packed, under GENZOO_DATA.
PACKED = {"cifar10": "cifar10-jpeg.tar"}
# What is measured of an entry: the group of the first of these figures that it has.
GROUP = {
    "nll": "likelihood",
    "accuracy": "accuracy",
    "modes": "modes",
    "frechet": "closeness",
    "codebook_usage": "codes",
}


def name_of(entry: Entry) -> str:
    return entry.name


every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=name_of)


#: what most tests look at, and none changes
loaded = cache(genzoo.load)


def figures(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {figure["name"]: figure for figure in metrics["figures"]}


def data_of(entry: Entry, *, all_of_test: bool | None = True) -> DataModule:
    """The entry's data, or a skipped test where they are not at hand.

    Args:
        entry: whose data.
        all_of_test: of data that are packed, whether test data are unpacked all, or so many of each class that the
            first and the middle one are those of all; None: all of the training data, too, of which otherwise there
            are a few of each class.
    """
    import genzoo.datamodules

    block = entry.config["data"]
    classes, arguments = exported(genzoo.datamodules), block["init_args"]
    needs_root = "root" in inspect.signature(classes[block["class_path"]]).parameters
    if arguments.get("source") == "stdlib":  # Python's own source, which is another with each version
        written = entry.metrics["environment"]["python"]
        if platform.python_version() != written:
            pytest.skip(f"was measured on the source of Python {written}, and this is {platform.python_version()}")
    elif needs_root:
        root = os.environ.get("GENZOO_DATA", "")
        packed = PACKED.get(entry.name.partition("/")[0])
        others = getattr(classes[block["class_path"]], "files", ("tinyshakespeare/input.txt",))  # of a text: that one
        files = others if packed is None else (packed,)
        if not root or not all((Path(root) / file).is_file() for file in files):
            pytest.skip(f"needs its data: set GENZOO_DATA to the folder that has them ({files[0]}, …)")
        root = root if packed is None else unpacked(Path(root) / packed, all_of_test).name
        block = {**block, "init_args": {**arguments, "root": root}}
    return build({key: value for key, value in block.items() if key != "hint"}, classes)


@cache
def unpacked(archive: Path, all_of_test: bool | None) -> tempfile.TemporaryDirectory[str]:
    """A folder with what is wanted of an archive (`data_of`), which goes with the tests."""
    folder = tempfile.TemporaryDirectory()

    def wanted(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        split, number = member.name.partition("/")[0], int(re.sub(r"\D", "", Path(member.name).stem) or 0)
        enough = number < (20 if split == "train" else 10_000 if all_of_test else 50)
        return tarfile.data_filter(member, path) if enough or all_of_test is None or not member.isfile() else None

    with tarfile.open(archive) as files:
        files.extractall(folder.name, filter=wanted)
    return folder


def assert_reproduced(measured: dict[str, Any], published: dict[str, Any], rel: float) -> None:
    """Likelihoods and accuracies to `rel`; those of samples to a few pixels that another rounding drew otherwise."""
    for name, figure in figures(published).items():
        if name in MEASURED_ANEW:
            continue
        again = figures(measured)[name]
        assert again["protocol"] == figure["protocol"], name
        assert again.get("num_examples") == figure.get("num_examples"), name
        close = rel if name in OF_THE_DATA else 5e-3
        for value in {"value", "floor"} & figure.keys():
            assert again[value] == pytest.approx(figure[value], rel=close, abs=1e-6), f"{name}: {value}"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the features of real data are kept: those of one data set are the same for all its entries."""
    return tmp_path_factory.mktemp("features")


def measure(
    entry: Entry, kept: Path, device: str, *, all_of_test: bool | None = None, **otherwise: Any
) -> dict[str, Any]:
    """The entry's figures, by the protocol of those that it published, but for what is said otherwise."""
    options = {**entry.metrics["evaluation"], "cache_dir": str(kept), "progress": False, **otherwise}
    return evaluate(loaded(entry.name), data_of(entry, all_of_test=all_of_test), device=device, **options)


@torch.no_grad()
def of_500(entry: Entry) -> float:
    """The Fréchet distance of 500 samples from 500 data spread over the test split, or the share that it knows."""
    data, model = data_of(entry, all_of_test=False), loaded(entry.name)
    data.prepare_data()
    x, y = (torch.cat(parts) for parts in zip(*split_batches(data, "test"), strict=True))
    rows = torch.arange(num := min(500, len(x))) * len(x) // num
    if not isinstance(model, Samples):
        return float((model(x[rows]).argmax(1) == y[rows]).double().mean())
    extractor, distance = FeatureExtractor(entry.metrics["evaluation"]["extractor"]), FrechetDistance()
    for images, real in ((x[rows], True), (draw(model.sample, 500, 0), False)):
        distance.update(extractor(images), real=real)
    return float(distance.compute())


@every_entry
def test_it_is_whole(entry: Entry) -> None:
    names = {path.name for path in entry.path.iterdir()}
    model = loaded(entry.name)
    suffix = {"waveform": "wav", "tokens": "txt"}.get(model.modality, "png")
    samples = {f"samples.{suffix}"} if isinstance(model, Samples) else set()
    assert names - {"learning.png"} == {"config.yaml", "model.safetensors", "metrics.json", "README.md"} | samples
    assert ("learning.png" in names) == ("film" in entry.metrics["training"])
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) == entry.config["weights"]["parameters"]
    assert list(entry.config["shape"]) == list(model.shape) and entry.config["levels"] == model.levels
    assert "root" not in entry.config["data"]["init_args"]
    if getattr(model, "num_classes", None) is not None:  # they are called as in the data
        assert list(model.class_names) == list(getattr(data_of(entry, all_of_test=False), "class_names", ()))


@every_entry
def test_every_figure_says_what_it_is(entry: Entry) -> None:
    metrics = entry.metrics
    assert {"figures", "evaluation", "training", "environment"} <= metrics.keys()
    assert all(metrics["training"].get(key) is not None for key in ("recipe", "seconds", "hardware", "steps", "seed"))
    assert metrics["training"]["recipe"] == entry.name
    assert all(metrics["environment"].get(key) for key in ("commit", "genzoo", "torch", "lightning", "python"))
    card = (entry.path / "README.md").read_text("utf-8")
    assert f'genzoo.load("{entry.name}")' in card
    for figure in metrics["figures"]:
        assert figure["unit"] and figure["protocol"] and math.isfinite(figure["value"]), figure
        assert figure["name"] in card
        if figure["name"] not in ("parameters", "network_evaluations"):
            assert figure["num_examples"] > 0
        if figure["name"] not in OF_THE_MODEL:
            assert figure["split"] == "test"
        if figure["name"] in ("frechet", "fid"):
            assert figure["floor"] >= 0
    names = figures(metrics)
    model = loaded(entry.name)
    assert "nll" in names or not isinstance(model, HasLogProb)
    assert "frechet" in names or not isinstance(model, Samples) or model.modality != "image"
    assert "accuracy" in names or isinstance(model, Samples | HasCodes)
    assert "codebook_usage" in names or not isinstance(getattr(model, "autoencoder", model), HasCodes)


@every_entry
def test_it_samples_its_data(entry: Entry) -> None:
    model = loaded(entry.name)
    if not isinstance(model, Samples):
        pytest.skip("neither a classifier nor a tokenizer draws samples")
    x = model.sample(4, generator=torch.Generator().manual_seed(0))
    assert x.shape == (4, *model.shape)
    model.check(x)


def test_what_this_version_promises_is_there() -> None:
    families = {
        "digits": "ae classifier ddpm flow-matching gan made pixelcnn score vae",
        "mnist": "ae classifier dae dcgan ddpm flow-matching iwae masked pixelcnn score vae wgan-gp",
        "points": "ddpm flow-matching gan-collapse wgan-gp",
        "shakespeare": "gpt masked",
        "stdlib": "gpt",
        "fsdd": "wavenet",
        "emoji": "ae flow-matching gan latent-flow latent-gpt pixelcnn tokenizer vae",
        "cifar10": "classifier dit flow-matching gan latent-dit",
        "fashion": "classifier flow-matching gan masked pixelcnn vae",
    }
    promised = {f"{data}/{name}" for data, names in families.items() for name in names.split()}
    assert promised <= {entry.name for entry in ENTRIES}


@pytest.mark.parametrize("entry", ON_DIGITS, ids=name_of)
def test_its_figures_are_reproduced_on_digits(entry: Entry, kept: Path) -> None:
    assert_reproduced(measure(entry, kept, "cpu"), entry.metrics, rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("entry", ON_OTHERS, ids=name_of)
def test_its_figures_are_reproduced(entry: Entry, kept: Path) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert_reproduced(measure(entry, kept, device), entry.metrics, rel=1e-3)


@pytest.mark.parametrize("entry", ON_OTHERS, ids=name_of)
def test_its_first_figure_holds(entry: Entry, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The likelihood of a part of its data, within the error of so few; what takes as long otherwise, of 500 data, as
    it was; any other figure, which costs less, whole."""
    for family in (FlowMatching, ScoreModel):
        if entry.name in OF_TWO:
            monkeypatch.setattr(family, "flow_steps", FEW_STEPS)
    published = figures(entry.metrics)
    group = next(group for name, group in GROUP.items() if name in published)
    if group in ("closeness", "accuracy"):
        assert of_500(entry) == pytest.approx(OF_500[entry.name], rel=1e-2)
        return
    many = 2 if entry.name in OF_TWO else FEW.get(entry.name, MANY)
    few = {"num_likelihood": many} if group == "likelihood" else {}
    measured = measure(entry, kept, "cpu", all_of_test=entry.name not in OF_TWO, only=(group,), **few)
    if group != "likelihood":
        names = figures(measured).keys() & published.keys()
        assert_reproduced(measured, {"figures": [published[name] for name in names]}, rel=1e-3)
        return
    before, now = published["nll"], figures(measured)["nll"]
    assert now["kind"] == before["kind"]
    if entry.name in OF_TWO:
        assert now["value"] == pytest.approx(OF_TWO[entry.name], rel=1e-3)
        return
    # The same noise for each datum as then, so that nothing but the choice of n data out of N differs.
    n, big_n = now["num_examples"], before["num_examples"]
    std, own_std = (figure["standard_error"] * math.sqrt(figure["num_examples"]) for figure in (before, now))
    assert own_std == pytest.approx(std, rel=0.6)  # so that no entry widens what it is measured by
    error = std * math.sqrt(1 / n - 1 / big_n)
    assert now["value"] == pytest.approx(before["value"], abs=4 * error + 1e-3 * abs(before["value"]))


# In a recipe's "Expected:", the first number of each.
STATED = {
    "nll": r"nll (?:≤ |about )?([\d.]*\d)",
    "bits_per_dim": r"([\d.]*\d)(?: ± [\d.]+)? bits/dim",
    "frechet": r"Fréchet distance (?:of )?([\d.]*\d)",
    "coverage": r"coverage ([\d.]*\d)",
}


@every_entry
def test_its_recipe_states_its_figures(entry: Entry) -> None:
    """Rounded to as many digits as it gives."""
    lines = recipes.find(entry.name).read_text().splitlines()
    said = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#")).partition("Expected:")[
        2
    ]
    for name, figure in figures(entry.metrics).items():
        if name in STATED and (stated := re.search(STATED[name], said)):
            digits = len(stated[1].partition(".")[2])
            assert float(stated[1]) == pytest.approx(figure["value"], abs=0.501 * 10**-digits), name
