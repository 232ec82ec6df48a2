"""Entries survive the way out and back in; damaged and hostile ones are refused, and nothing is half-written."""

import os
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from lightning.pytorch import LightningModule
from safetensors.torch import load_file
from torch import nn

import genzoo
from genzoo.datamodules import DigitsDataModule
from genzoo.zoo import VAE, hub
from genzoo.zoo.files import staged
from genzoo.zoo.hub import addresses, checkpoints, entries, loading, publishing, storage
from genzoo.zoo.likelihoods import DiscretisedLogistic

FIGURE = {"name": "nll", "value": 1.25, "unit": "nats", "split": "test", "protocol": "p", "num_examples": 9}


def tiny(**options: Any) -> VAE:
    return VAE(shape=(1, 8, 8), levels=17, latent_dim=2, network="mlp", width=8, depth=1, **options)


@pytest.fixture(scope="module")
def module() -> VAE:
    torch.manual_seed(0)
    return tiny(likelihood=DiscretisedLogistic())


@pytest.fixture
def entry(module: VAE, tmp_path: Path) -> Path:
    return Path(genzoo.publish(module, "digits/vae", to=tmp_path / "entry", metrics={"figures": [FIGURE]}))


def edit(entry: Path, change: dict[str, Any]) -> None:
    config = yaml.safe_load((entry / "config.yaml").read_text())
    (entry / "config.yaml").write_text(yaml.safe_dump({**config, **change}))


def assert_same(a: nn.Module, b: nn.Module) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key]), key


# ---- out and back in


def test_a_loaded_model_is_the_published_one(module: VAE, entry: Path) -> None:
    loaded = genzoo.load(entry)
    assert type(loaded) is VAE and not loaded.training and loaded.likelihood == DiscretisedLogistic()
    assert_same(module, loaded)
    x = loaded.sample(3, generator=torch.Generator().manual_seed(0))
    noise = {"generator": torch.Generator().manual_seed(1)}, {"generator": torch.Generator().manual_seed(1)}
    assert torch.equal(loaded.log_prob(x, **noise[0]), module.eval().log_prob(x, **noise[1]))


def test_a_loaded_model_can_be_published_again(entry: Path, tmp_path: Path) -> None:
    again = genzoo.publish(genzoo.load(entry), "digits/vae", to=tmp_path / "again")
    assert (Path(again) / "model.safetensors").read_bytes() == (entry / "model.safetensors").read_bytes()


def test_an_entry_has_its_files_and_they_say_what_it_is(module: VAE, tmp_path: Path) -> None:
    picture = tmp_path / "grid.png"
    picture.write_bytes(b"png")
    data = DigitsDataModule(limit=100)
    training = {"training": {"recipe": "digits/vae", "seconds": 4000, "steps": 7, "hardware": "2 CPU threads"}}
    said = {"description": "A small one.", "limits": "Many."}
    place = hub.publish(
        module,
        "digits/vae",
        to=tmp_path / "entry",
        data=data,
        metrics={"figures": [FIGURE | {"kind": "lower_bound", "standard_error": 0.5}], **training},
        card=said,
        samples=picture,
    )
    assert isinstance(place, Path)
    files = {"config.yaml", "model.safetensors", "metrics.json", "README.md", "samples.png"}
    assert {path.name for path in place.iterdir()} == files
    entry = hub.Entry("digits/vae", place)
    assert entry.config["shape"] == [1, 8, 8] and entry.config["levels"] == 17
    assert entry.config["data"]["class_path"].endswith("DigitsDataModule")
    assert entry.config["data"]["init_args"]["limit"] == 100
    assert entry.metrics["figures"][0]["value"] == 1.25
    card = (place / "README.md").read_text("utf-8")
    for text in (
        "A small one.",
        "Many.",
        "| nll |",
        entry.config["weights"]["sha256"],
        "1.25 ± 0.5",
        "1 h 6 min",
        "digits/vae",
        "17 levels",
    ):
        assert text in card, text


def test_the_data_root_is_not_published(module: VAE, tmp_path: Path) -> None:
    data = {"class_path": "genzoo.datamodules.MNISTDataModule", "init_args": {"root": "/home/me", "seed": 3}}
    place = Path(hub.publish(module, "x", to=tmp_path / "e", data=data))
    assert hub.Entry("x", place).config["data"]["init_args"] == {"seed": 3}
    assert "/home/me" not in "".join(path.read_text("utf-8") for path in place.glob("*.[myR]*[dln]"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_on_disk_is_cast_back(module: VAE, tmp_path: Path, dtype: Any) -> None:
    place = Path(genzoo.publish(module, "half", to=tmp_path / "half", dtype=dtype))
    loaded = genzoo.load(place)
    for key, value in module.state_dict().items():
        assert loaded.state_dict()[key].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[key], value.to(getattr(torch, dtype)).float())


def test_whole_numbers_on_disk_are_times_scales(tmp_path: Path) -> None:
    """The definition, |w - s q| ≤ 0.7 s, and that a loaded entry published again is the same file."""
    module = VAE((1, 11, 9), 17, latent_dim=2, network="mlp", width=96, depth=1)  # rows of 99, 2 and 96
    place = Path(genzoo.publish(module, "whole", to=tmp_path / "whole", dtype="int8"))
    loaded, held = genzoo.load(place), load_file(place / "model.safetensors")
    names, rounded = dict(module.named_parameters()), 0
    for key, value in module.state_dict().items():
        own = loaded.state_dict()[key]
        if key not in names or value.dim() < 2 or value.numel() < 8192:
            assert torch.equal(own, value.half().float() if value.dtype == torch.float32 else value)
            continue
        rounded += 1
        q, s = held[key].double(), held[f"{key}.scale"].double()
        assert held[key].dtype == torch.int8
        for row in range(len(value)):
            for block, scale in enumerate(s[row]):
                part = slice(32 * block, 32 * (block + 1))
                assert q[row].flatten()[part].abs().max() == 127
                assert torch.equal(own[row].flatten()[part].double(), scale * q[row].flatten()[part])
                gap = (value[row].flatten()[part].double() - scale * q[row].flatten()[part]).abs()
                assert (gap <= 0.7 * scale).all()
    assert rounded >= 2
    halves = sum(2 * value.numel() for value in module.state_dict().values())
    assert sum(value.nbytes for value in held.values()) < 0.6 * halves
    again = Path(genzoo.publish(loaded, "whole", to=tmp_path / "again", dtype="int8"))
    assert (again / "model.safetensors").read_bytes() == (place / "model.safetensors").read_bytes()


def test_weights_of_any_size_are_stored_in_whole_numbers() -> None:
    rows = torch.tensor([[0.0, 0, 0], [1e-30, -1e-30, 0], [3e38, 1e38, -2e38], [1e-40, 0, 0], [5.0, 1e-9, -5]])
    module = nn.Linear(3, 5000, bias=False)
    module.weight.data = weight = rows.repeat(1000, 1)
    own = storage.as_stored(module, "int8")["weight"]
    assert torch.isfinite(own).all()
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((own - weight).abs() <= 0.7 * step.clamp(min=torch.finfo(torch.bfloat16).tiny)).all()
    module.weight.data = own
    assert torch.equal(storage.as_stored(module, "int8")["weight"], own)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_stored_in_whole_numbers(tmp_path: Path, bad: float) -> None:
    module = nn.Linear(100, 100)
    module.weight.data[1, 2] = bad
    with pytest.raises(ValueError, match="weight holds NaN or infinite values"):
        publishing.write_weights(tmp_path / "w.safetensors", module, "int8")


def test_float64_tables_keep_their_precision(tmp_path: Path) -> None:
    module = Plain(3)
    module.register_buffer("table", torch.linspace(0, 1, 7, dtype=torch.float64))
    module.register_buffer("steps", torch.tensor(2**40))
    state = publishing.write_weights(tmp_path / "w.safetensors", module, "float16")
    stored = loading.read_weights(tmp_path / "w.safetensors", state["sha256"])
    assert torch.equal(stored["table"], module.table) and torch.equal(stored["steps"], module.steps)
    assert stored["net.weight"].dtype == torch.float16


def test_loading_leaves_the_random_state_alone(entry: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    genzoo.load(entry)
    assert torch.equal(torch.rand(3), expected)


def test_optimisers_are_on_record_but_not_built(entry: Path) -> None:
    config = yaml.safe_load((entry / "config.yaml").read_text())
    config["model"]["init_args"]["optimizer"] = {"class_path": "os.system", "init_args": {"lr": 1.0}}
    edit(entry, config)
    loaded = genzoo.load(entry)
    assert loaded.optimizer is None and loaded.hparams["optimizer"]["init_args"] == {"lr": 1.0}


class Plain(LightningModule):
    """Somebody's own module."""

    def __init__(self, width: int, act: nn.Module | None = None):
        super().__init__()
        self.save_hyperparameters(ignore=["act"])
        self.net = nn.Linear(width, width)


def test_a_class_of_ones_own_needs_to_be_allowed(tmp_path: Path) -> None:
    place = Path(genzoo.publish(Plain(3), "mine", to=tmp_path / "mine"))
    assert type(genzoo.load(place, allow=(Plain,))) is Plain
    with pytest.raises(ValueError, match="allow="):
        genzoo.load(place)


# ---- names


def test_embedded_entries_are_listed_in_natural_order(
    module: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "EMBEDDED", tmp_path)
    for name in ("mnist/vae-10", "mnist/vae-2", "digits/vae"):
        genzoo.publish(module, name)
    assert [e.name for e in genzoo.list_models()] == ["digits/vae", "mnist/vae-2", "mnist/vae-10"]
    assert [e.name for e in genzoo.list_models("mnist/*")] == ["mnist/vae-2", "mnist/vae-10"]
    assert_same(genzoo.load("mnist/vae-2"), module)
    assert 'genzoo.load("digits/vae")' in (tmp_path / "digits/vae/README.md").read_text()
    with pytest.raises(FileNotFoundError, match="did you mean mnist/vae-2"):
        genzoo.load("mnist/vae-3")
    with pytest.raises(FileNotFoundError, match="`genzoo list` shows the entries"):
        genzoo.load("zzz")


def test_every_embedded_entry_loads_as_its_metrics_say() -> None:
    for entry in genzoo.list_models():
        loaded = genzoo.load(entry.name)
        assert sum(p.numel() for p in loaded.parameters()) == entry.config["weights"]["parameters"]
        assert entry.metrics["figures"], entry.name


def test_embedded_weights_stay_small() -> None:
    assert sum(p.stat().st_size for p in entries.EMBEDDED.rglob("*") if p.is_file()) <= 42 * 2**20


def test_importing_the_hub_imports_no_torch() -> None:
    code = "import sys, genzoo; genzoo.list_models(); assert not {'torch', 'lightning', 'wandb'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- damaged and hostile entries


def test_truncated_weights(entry: Path) -> None:
    weights = entry / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut short"):
        genzoo.load(entry)


def test_exchanged_weights(entry: Path) -> None:
    weights = entry / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="SHA-256"):
        genzoo.load(entry)


def test_weights_that_are_no_safetensors(entry: Path) -> None:
    import hashlib
    import pickle

    data = pickle.dumps({"weight": 1})
    (entry / "model.safetensors").write_bytes(data)
    config = hub.read_config(entry)
    edit(entry, {"weights": {**config["weights"], "sha256": hashlib.sha256(data).hexdigest()}})
    with pytest.raises(ValueError, match="no safetensors file"):
        genzoo.load(entry)


@pytest.mark.parametrize(
    ("change", "fault"),
    [({"width": 9}, "another shape"), ({"depth": 2}, "lacks"), ({"depth": 0}, "unknown to the model")],
)
def test_weights_that_do_not_fit(entry: Path, change: dict[str, Any], fault: str) -> None:
    model = hub.read_config(entry)["model"]
    edit(entry, {"model": {**model, "init_args": {**model["init_args"], **change}}})
    with pytest.raises(ValueError, match=fault):
        genzoo.load(entry)


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "builtins.eval",
        "genzoo.zoo.hub.os.system",
        "genzoo.zoo.hub.publish",
        "torch.nn.functional.relu",
        "torch.nn.init.os.system",
        "torch.hub.load",
        "torch.nn",
        "VAE",
        "subprocess.Popen",
        "genzoo.zoo.latent.vae.math.exp",
        "trap.Trap",
        None,
        ["os.system"],
    ],
)
@pytest.mark.parametrize("where", ["model", "argument"])
def test_hostile_class_paths_are_refused_and_not_imported(
    entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, where: str
) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    model = hub.read_config(entry)["model"]
    hostile = {"class_path": path, "init_args": {"command": f"touch {tmp_path / 'pwned'}"}}
    if where == "argument":
        hostile = {**model, "init_args": {**model["init_args"], "likelihood": hostile}}
    edit(entry, {"model": hostile})
    with pytest.raises(ValueError, match=r"class_path|damaged"):
        genzoo.load(entry)
    assert "trap" not in sys.modules and not (tmp_path / "pwned").exists()


def test_a_string_stays_a_string(entry: Path) -> None:
    model = hub.read_config(entry)["model"]
    edit(entry, {"model": {**model, "init_args": {**model["init_args"], "likelihood": "os.system"}}})
    with pytest.raises((ValueError, AttributeError)):  # the family's constructor got the text itself
        genzoo.load(entry)


def test_a_part_is_no_model(entry: Path) -> None:
    edit(entry, {"model": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}}})
    with pytest.raises(ValueError, match="part of one"):
        genzoo.load(entry)


def test_arguments_that_the_class_does_not_take(entry: Path) -> None:
    model = hub.read_config(entry)["model"]
    edit(entry, {"model": {**model, "init_args": {**model["init_args"], "widht": 3}}})
    with pytest.raises(ValueError, match="widht"):
        genzoo.load(entry)


def test_a_tag_in_yaml_is_not_executed(entry: Path, tmp_path: Path) -> None:
    (entry / "config.yaml").write_text(f"!!python/object/apply:os.system ['touch {tmp_path / 'pwned'}']")
    with pytest.raises(ValueError, match="damaged"):
        genzoo.load(entry)
    assert not (tmp_path / "pwned").exists()


def test_a_bomb_of_aliases(entry: Path) -> None:
    bomb = "a: &a [1, 1]\n" + "".join(f"{y}: &{y} [*{x}, *{x}]\n" for x, y in zip("abcdef", "bcdefg", strict=True))
    (entry / "config.yaml").write_text((entry / "config.yaml").read_text() + bomb)
    with pytest.raises(ValueError, match="aliases"):
        genzoo.load(entry)


@pytest.mark.parametrize("text", ["", "[]", "genzoo: 0.1.0", "a: [", "\x00", "genzoo: 1\nmodel: 2\nweights: 3"])
def test_damaged_configurations(entry: Path, text: str) -> None:
    (entry / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match="damaged"):
        genzoo.load(entry)


def test_an_entry_of_a_newer_genzoo(entry: Path) -> None:
    edit(entry, {"genzoo": "999.0.0"})
    with pytest.raises(ValueError, match=r"genzoo 999\.0\.0.*pip install -U genzoo"):
        genzoo.load(entry)


def test_a_folder_that_is_no_entry(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no entry of a zoo"):
        genzoo.load(tmp_path)


def test_links_into_the_cache_of_hugging_face_are_followed_and_others_are_not(entry: Path, tmp_path: Path) -> None:
    """Its cache keeps each file in `blobs`, to which those of `snapshots/<revision>` are links."""
    repository = tmp_path / "models--me--vae"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.mkdir(parents=True), blobs.mkdir()
    for number, file in enumerate(sorted(entry.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    genzoo.load(snapshot)
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="a link out of its folder"):
        genzoo.load(snapshot)


def test_an_installer_may_link_the_files_of_embedded_entries(
    entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights/digits/vae").mkdir(parents=True)
    for file in entry.iterdir():
        (tmp_path / "weights/digits/vae" / file.name).symlink_to(file)
    with pytest.raises(ValueError, match="a link out of its folder"):
        genzoo.load(tmp_path / "weights/digits/vae")
    monkeypatch.setattr(entries, "EMBEDDED", tmp_path / "weights")
    genzoo.load("digits/vae")


def test_of_a_published_protocol_a_fixed_list_is_taken() -> None:
    plain = {"split": "val", "num_particles": 3, "odd": ["faint"], "seed": 7, "extractor": "digits/classifier"}
    assert entries.protocol_of(plain) == (plain, [])
    assert entries.protocol_of({"extractor": "inception", "num_odd": None}) == ({"extractor": "inception"}, [])
    taken, left = entries.protocol_of({"extractor": "my/net", "weights_path": "x.pth", "only": ["modes"], "seed": 0})
    assert taken == {"seed": 0} and left == ["extractor", "weights_path", "only"]


# ---- publishing writes everything or nothing


def test_replacing_an_entry(module: VAE, entry: Path) -> None:
    (entry / "samples.png").write_bytes(b"of the one before")
    torch.manual_seed(1)
    other = tiny()
    genzoo.publish(other, "digits/vae", to=entry)
    assert_same(genzoo.load(entry), other)
    assert not (entry / "samples.png").exists()
    assert [path.name for path in entry.parent.iterdir()] == ["entry"]
    (entry.parent / "link").symlink_to(entry)
    genzoo.publish(module, "digits/vae", to=entry.parent / "link")
    assert_same(genzoo.load(entry), module)
    assert {path.name for path in entry.parent.iterdir()} == {"entry", "link"}


def test_a_failure_leaves_the_old_entry(module: VAE, entry: Path) -> None:
    before = {path.name: path.read_bytes() for path in entry.iterdir()}
    bad = tiny()
    bad.encoder.inlet.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        genzoo.publish(bad, "digits/vae", to=entry)
    assert {path.name: path.read_bytes() for path in entry.iterdir()} == before
    assert [path.name for path in entry.parent.iterdir()] == ["entry"]


def test_a_failed_swap_puts_the_old_entry_back(module: VAE, entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (entry / "model.safetensors").read_bytes()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if target == entry and not self.name.endswith(".old"):
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="disk full"):
        genzoo.publish(tiny(), "digits/vae", to=entry)
    assert (entry / "model.safetensors").read_bytes() == before
    assert [path.name for path in entry.parent.iterdir()] == ["entry"]


def test_other_peoples_folders_are_not_replaced(module: VAE, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="not replaced"):
        genzoo.publish(module, "x", to=tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "name", ["thesis.tex", ".hidden", "checkpoints/last.ckpt", "samples.png/x", "model.safetensors2"]
)
def test_an_entry_with_anything_foreign_in_it_is_not_replaced(module: VAE, entry: Path, name: str) -> None:
    (entry / name).parent.mkdir(exist_ok=True)
    (entry / name).write_text("years of work")
    before = {path: path.read_bytes() for path in entry.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=f"not replaced.*{name.partition('/')[0]} would be lost"):
        genzoo.publish(tiny(), "digits/vae", to=entry)
    assert {path: path.read_bytes() for path in entry.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "files",
    [
        {"config.yaml": "model: {class_path: VAE}\ntrainer: {max_epochs: 2}", "checkpoints/last.ckpt": "weights"},
        {"config.yaml": "model: {class_path: VAE}", "model.safetensors": "of a program of somebody else"},
        {"config.yaml": "mine"},
        {"model.safetensors": "of a program of somebody else"},
        {"README.md": "my project"},
    ],
)
def test_a_folder_that_only_resembles_an_entry_is_not_replaced(module: VAE, tmp_path: Path, files: dict) -> None:
    for name, text in files.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(text)
    with pytest.raises(ValueError, match="not replaced"):
        genzoo.publish(module, "digits/vae", to=tmp_path / "run")
    assert {name: (tmp_path / "run" / name).read_text() for name in files} == files
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_comes_into_the_folder_meanwhile_is_not_lost(
    module: VAE, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*given: Any, **options: Any) -> LightningModule:
        (entry / "notes.txt").write_text("written while the weights were")
        return loading.load(*given, **options)

    monkeypatch.setattr(publishing, "load", slowly)
    before = (entry / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"not replaced.*notes\.txt"):
        genzoo.publish(tiny(), "digits/vae", to=entry)
    assert (entry / "notes.txt").exists() and (entry / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["", "../x", "/x", "a//b", "a b", ".hidden", "a/../b"])
def test_bad_names(module: VAE, name: str) -> None:
    with pytest.raises(ValueError, match="name="):
        genzoo.publish(module, name)


@pytest.mark.parametrize(
    "to", ["https://host/x", "nowhere://bucket/x", "hf://owner", "hf://a/b/c", "wandb://entity/artifact"]
)
def test_bad_destinations(module: VAE, to: str) -> None:
    said = r"hf://owner/name|wandb://entity/project/artifact|nothing is known that writes there"
    with pytest.raises(ValueError, match=said):
        genzoo.publish(module, "x", to=to)


def test_arguments_that_no_file_can_state(tmp_path: Path) -> None:
    module = Plain(3)
    module.hparams["extra"] = object()
    with pytest.raises(ValueError, match="no file can state"):
        genzoo.publish(module, "x", to=tmp_path / "x")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value": float("nan")}, r"figures\[0\]\.value is nan"),
        ({"value": float("inf")}, r"figures\[0\]\.value is inf"),
        ({"floor": float("nan")}, r"figures\[0\]\.floor is nan"),
        ({"value": "9"}, r"figures\[0\]\.value is '9', but must be a number"),
        ({"value": torch.ones(2)}, "no file can state"),
        ({"unit": None}, r"figures\[0\]\.unit is None"),
        ({"name": "two\nlines"}, r"figures\[0\]\.name is 'two\\nlines', but must be text in one line"),
    ],
)
def test_figures_that_are_none_are_not_published(
    module: VAE, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        genzoo.publish(module, "x", to=tmp_path / "x", metrics={"figures": [FIGURE | change]})
    assert not any(tmp_path.iterdir())


def test_unknown_sections_of_the_card(module: VAE, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"licens.*description, data, limits, licence"):
        genzoo.publish(module, "x", to=tmp_path / "x", card={"license": "MIT"})


def test_live_modules_cannot_be_published(tmp_path: Path) -> None:
    own = tiny(encoder=nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    with pytest.raises(ValueError, match=r"live modules for encoder"):
        genzoo.publish(own, "x", to=tmp_path / "x")
    assert not any(tmp_path.iterdir())


def test_a_model_that_would_not_load_back_is_not_published(tmp_path: Path) -> None:
    module = Plain(3)
    module.extra = nn.Linear(1, 1)  # not built by the constructor
    with pytest.raises(ValueError, match="unknown to the model"):
        genzoo.publish(module, "x", to=tmp_path / "x")
    assert not any(tmp_path.iterdir())


# ---- addresses


@pytest.fixture
def remote(entry: Path) -> str:
    """The entry, at an fsspec address in memory."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.rm("/zoo", recursive=True) if system.exists("/zoo") else None
    system.put(str(entry), "/zoo", recursive=True)
    return "memory://zoo"


def test_any_url_that_fsspec_opens(module: VAE, remote: str, entry: Path) -> None:
    assert_same(genzoo.load(remote), module)
    assert_same(genzoo.load(f"file://{entry}"), module)
    assert hub.resolve(remote) != hub.resolve(f"file://{entry}")  # four files called alike, four places


def test_a_web_server(module: VAE, entry: Path) -> None:
    (entry / "metrics.json").unlink()  # what an entry can do without

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(entry.parent))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{entry.name}/"
        assert_same(genzoo.load(address), module)
        assert {path.name for path in hub.resolve(address).iterdir()} == {path.name for path in entry.iterdir()}
        server.shutdown()


def test_what_is_fetched_is_cached_until_it_changes(module: VAE, remote: str, entry: Path) -> None:
    import fsspec

    folder = hub.resolve(remote)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert hub.resolve(remote) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    torch.manual_seed(3)
    other = tiny()
    genzoo.publish(other, "digits/vae", to=entry)
    fsspec.filesystem("memory").rm("/zoo", recursive=True)
    fsspec.filesystem("memory").put(str(entry), "/zoo", recursive=True)
    assert_same(genzoo.load(remote), other)


def test_an_interrupted_download_leaves_nothing(remote: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def broken(self: Any, source: str, target: str, **_: Any) -> None:
        Path(target).write_bytes(b"half")
        raise ConnectionResetError("cable")

    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(MemoryFileSystem, "get_file", broken)
    with pytest.raises(OSError, match=r"could not fetch memory://zoo .*cable"):
        genzoo.load(remote)
    assert not any((tmp_path / "cache" / "entries").iterdir())


@pytest.mark.parametrize("damage", ["half", "a bit"])
def test_a_damaged_download_is_not_kept(
    damage: str, module: VAE, remote: str, entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    system, whole = fsspec.filesystem("memory"), (entry / "model.safetensors").read_bytes()
    spoiled = whole[: len(whole) // 2] if damage == "half" else whole[:-1] + bytes([whole[-1] ^ 1])
    system.pipe("/zoo/model.safetensors", spoiled)
    with pytest.raises(OSError, match=r"could not fetch memory://zoo .*damaged, or half there"):
        genzoo.load(remote)
    system.pipe("/zoo/model.safetensors", whole)
    assert_same(genzoo.load(remote), module)


def test_figures_that_are_no_longer_there_are_forgotten(remote: str) -> None:
    import fsspec

    assert (hub.resolve(remote) / "metrics.json").exists()
    fsspec.filesystem("memory").rm("/zoo/metrics.json")
    assert not (hub.resolve(remote) / "metrics.json").exists()


def test_a_folder_takes_its_place_whoever_else_puts_one_there(tmp_path: Path) -> None:
    """Of several that end at once one is there afterwards, whole, and no other is an error."""
    target, together, errors = tmp_path / "entry", Barrier(4), []

    def put(number: int) -> None:
        try:
            with staged(target) as staging:
                for name in "ab":
                    (staging / name).write_text(str(number))
                together.wait()
        except OSError as error:
            errors.append(error)

    for _ in range(20):
        threads = [Thread(target=put, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors and [path.name for path in tmp_path.iterdir()] == ["entry"]
    assert (target / "a").read_text() == (target / "b").read_text()


def test_an_address_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="neither an entry"):
        genzoo.load("~nobody-of-that-name/entry")
    with pytest.raises(ValueError, match="a revision cannot be written"):
        addresses.check_address("hf://owner/name@main", publishing=True)
    addresses.check_address("hf://owner/name@main")
    addresses.check_address("hf://owner/name@refs/pr/1")
    with pytest.raises(OSError, match=r"could not fetch memory://nowhere"):
        genzoo.load("memory://nowhere")
    with pytest.raises(OSError, match=r"could not fetch http://127\.0\.0\.1:9/x"):
        genzoo.load("http://127.0.0.1:9/x")
    with pytest.raises(ValueError, match="revision"):
        genzoo.load("memory://nowhere", revision="main")


def test_what_is_interrupted_between_two_folders_leaves_the_first(tmp_path: Path, monkeypatch: Any) -> None:
    """Ctrl-C comes when it comes, and also when the old one is away and the new one not yet there."""
    (tmp_path / "entry").mkdir()
    (tmp_path / "entry/old").touch()
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if target == tmp_path / "entry" and not self.name.endswith(".old"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "entry") as staging:
        (staging / "new").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["entry", "entry/old"]


def test_no_network_is_one_clear_error(module: VAE, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known\nand forty more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    for asks in ("model_info", "repo_exists", "create_repo"):
        monkeypatch.setattr(huggingface_hub.HfApi, asks, unreachable)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_ours")
    monkeypatch.chdir(tmp_path)  # where the entry is kept
    with pytest.raises(OSError, match=r"could not fetch hf://a/b \(ConnectionError: Name or service not known\)"):
        genzoo.load("hf://a/b")
    with pytest.raises(OSError, match=r"could not publish to hf://a/b"):
        genzoo.publish(module, "x", to="hf://a/b")


def test_wandb_artifacts_are_fetched(module: VAE, entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    asked = []

    contents = wandb.Artifact("vae", type="model")
    contents.add_dir(str(entry))

    class Artifact:
        qualified_name, digest, manifest = "me/zoo/vae:v0", "abc", contents.manifest

        def download(self, root: str, path_prefix: str = "") -> None:
            asked.append(path_prefix or root)
            for path in entry.glob(f"{path_prefix}*"):
                (Path(root) / path.name).write_bytes(path.read_bytes())

    class Api:
        def artifact(self, path: str) -> Artifact:
            asked.append(path)
            return Artifact()

    monkeypatch.setattr(wandb, "Api", Api)
    assert_same(genzoo.load("wandb://me/zoo/vae"), module)
    assert asked[:2] == ["me/zoo/vae:latest", "config.yaml"]
    genzoo.load("wandb://me/zoo/vae:v0")
    assert [path for path in asked if path.startswith("me/")][1:] == ["me/zoo/vae:v0"] and len(asked) == 4

    secret = entry.parent / "secret.txt"
    secret.write_text("mine")
    contents.add_reference(f"file://{secret}", name="samples.txt")
    monkeypatch.setattr(Artifact, "digest", "def")
    with pytest.raises(OSError, match=r"samples\.txt in it is no file of an entry's own"):
        genzoo.load("wandb://me/zoo/vae")
    assert len(asked) == 5  # and nothing was downloaded
    del contents.manifest.entries["samples.txt"]
    contents.manifest.entries["model.safetensors"].size = 2**40
    with pytest.raises(ValueError, match=r"its weights are 1,099,511,627,776 bytes, too many for"):
        genzoo.load("wandb://me/zoo/vae")
    assert asked[5:] == ["me/zoo/vae:latest", "config.yaml"]


def test_publishing_to_a_real_offline_wandb_run(module: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    import wandb

    wandb.teardown()  # it would remember the folder of an earlier test
    address = genzoo.publish(module, "digits/vae", to="wandb://me/zoo/vae")
    assert address == "wandb://me/zoo/vae:latest"
    wandb.teardown()  # ends wandb's own process, which until then may hold back the last lines of its log
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"model.safetensors" in log.read_bytes()
    names = {path.name.partition("-")[0] for path in (tmp_path / "staging").rglob("*") if path.is_file()}
    assert names  # the files wait to be synchronised
    assert os.environ["WANDB_MODE"] == "offline"


# ---- checkpoints


def test_a_training_checkpoint_is_rebuilt(tmp_path: Path) -> None:
    from lightning.pytorch import Trainer

    module = tiny()
    trainer = Trainer(max_steps=1, logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    trainer.fit(module, DigitsDataModule())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert_same(hub.load_checkpoint(tmp_path / "x.ckpt"), module)
    data = (tmp_path / "x.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cut short"):
        hub.load_checkpoint(tmp_path / "cut.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "bare.ckpt")
    with pytest.raises(ValueError, match="how its model was built"):
        hub.load_checkpoint(tmp_path / "bare.ckpt")
    with pytest.raises(FileNotFoundError):
        hub.load_checkpoint(tmp_path / "none.ckpt")


def test_a_class_is_found_under_the_name_of_the_module_that_it_moved_from(module: VAE, entry: Path) -> None:
    model = hub.read_config(entry)["model"]
    edit(entry, {"model": {**model, "class_path": "genzoo.zoo.vae.VAE"}})
    assert_same(hub.load(entry), module)


# ---- what Hugging Face reads of a card


def test_no_licence_is_claimed_that_nobody_stated(tmp_path: Path) -> None:
    """And one that was, is read by the Hub's own reader; so are the figures, each with its split and its unit."""
    module = VAE(shape=(1, 8, 8), levels=17, latent_dim=2, network="mlp", width=8, depth=1)
    figures = [
        {"name": "nll", "value": 99.5, "unit": "nats", "split": "test", "protocol": "p", "num_examples": 9},
        {"name": "parameters", "value": 7, "unit": "parameters", "protocol": "p"},
    ]
    for name, card in (("none", {}), ("mit", {"spdx": "mit"})):
        folder = Path(
            genzoo.publish(module, "digits/vae", to=tmp_path / name, card=card, metrics={"figures": figures})
        )
        read = ModelCard.load(folder / "README.md")
        assert read.data.license == card.get("spdx") and ("Apache" in read.text) is False
        (result,) = read.data.eval_results
        assert (result.metric_type, result.metric_value, result.dataset_split) == ("nll", 99.5, "test")
        assert result.metric_name == "nll, nats" and result.task_type == "unconditional-image-generation"
    with pytest.raises(ValueError, match=r"card\.spdx is 'no licence at all', but must be a licence's identifier"):
        genzoo.publish(module, "digits/vae", to=tmp_path / "bad", card={"spdx": "no licence at all"})


def test_a_run_that_measures_by_classes_of_its_own_is_read() -> None:
    """They are not heeded, as of an entry, and named among what is not."""
    asked = {"odd": {"class_path": "FashionMNISTDataModule"}, "extractor": {"class_path": "my.Net"}, "seed": 3}
    callbacks = [{"class_path": "genzoo.callbacks.Publish", "init_args": {"name": "a/b", "evaluation": asked}}]
    said = checkpoints.published({"trainer": {"callbacks": callbacks}})
    assert said["name"] == "a/b"
    assert entries.protocol_of(said["evaluation"]) == ({"seed": 3}, ["odd", "extractor"])
    for nonsense in (["odd"], "odd"):
        callbacks[0]["init_args"]["evaluation"] = nonsense
        with pytest.raises(ValueError, match=r"config\.yaml .*evaluation"):
            checkpoints.published({"trainer": {"callbacks": callbacks}})


def test_a_name_that_none_can_have_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name='My model': give letters"):
        publishing.checked_target("My model", tmp_path / "entry")


@pytest.mark.parametrize("name", ["points/flow-matching", "points/wgan-gp"])
def test_a_model_that_is_loaded_in_inference_mode_answers_there(name: str) -> None:
    """Likelihoods and inversions take derivatives by the data."""
    asked = "log_prob" if name == "points/flow-matching" else "anomaly_score"
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        inside = getattr(genzoo.load(name), asked)(x)
    torch.testing.assert_close(inside.clone(), getattr(genzoo.load(name), asked)(x).detach())
