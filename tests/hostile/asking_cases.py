"""Entries that ask for something: of `evaluate`, of the data, of the model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from changes import ALL, DIGITS, POINTS, Case, appended, argument, asks, config, linear, metrics, raw


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _evaluation()
    yield from _data()
    yield from _model()


def _evaluation() -> Iterator[Case]:
    heeded_not = {
        "weights_path": "payload.pkl",
        "cache_dir": "elsewhere",
        "device": "meta",
        "only": ["likelihood"],
        "progress": True,
        "module": None,
        "datamodule": {"class_path": "trap.Trap"},
        "__class__": "trap.Trap",
    }
    for name, value in heeded_not.items():
        yield Case(f"evaluation: {name}", asks(**{name: value}), "")
    for extractor in (
        "good/digits",
        "./good/digits",
        "hf://owner/name",
        "http://127.0.0.1:9/x",
        "wandb://a/b/c",
        "file:///etc",
        "memory://zoo",
        "../digits",
        "/etc/passwd",
        "trap.Trap",
        "",
    ):
        yield Case(f"evaluation: extractor {extractor}", asks(extractor=extractor), "")
    yield Case("evaluation: inception's weights", asks(extractor="inception", weights_path="payload.pkl"), "e")
    for name, values in {
        "split": ["tset", 5, ["test"], {"class_path": "trap.Trap"}, "../test"],
        "num_particles": [0, -1, 10**9, "5", 2.5, True, [1]],
        "num_samples": [0, 10**12, "8", 8.0],
        "num_likelihood": [0, -3, {}, "all"],
        "num_odd": [-1, 10**15, "4"],
        "seed": [-1, 2**63, "0", 0.5],
        "odd": ["faint", [1], {"class_path": "trap.Trap"}, [["faint"]], [{"class_path": "trap.Trap"}]],
        "extractor": [5, ["inception"], {"class_path": "trap.Trap"}],
    }.items():
        for value in values:
            change = asks(**{name: value})
            yield Case(
                f"evaluation: {name}={value!r:.30}", change, "ecp", rf"metrics\.json is damaged.*evaluation\.{name}"
            )
    yield Case("evaluation: odd ways that there are not", asks(odd=["os.system"]), "e", "odd is", base="digits")
    for value in ([], "", 5, None, [["seed", 0]]):
        yield Case(f"evaluation: {value!r}", metrics("evaluation", be=value), "ecp", "evaluation is")


def _data() -> Iterator[Case]:
    def block(path: str, /, **arguments: Any) -> Callable[[Path], None]:
        return config("data", be={"class_path": path, "init_args": arguments})

    for path in (
        "os.system",
        "builtins.open",
        "trap.Trap",
        "subprocess.Popen",
        "genzoo.datamodules.BatchPlan",
        "genzoo.datamodules.InMemory",
        "genzoo.datamodules.base.DataModule.prepare_data",
        "genzoo.datamodules.text.download",
        "genzoo.zoo.VAE",
        "torch.nn.Linear",
    ):
        yield Case(f"data: {path}", block(path, num_rows=5), "ec", "none of the classes")
    folder, secret = "genzoo.datamodules.ImageFolderDataModule", "genzoo.datamodules.TextDataModule"
    yield Case("data: a folder of the reader's", block(folder, root="private", size=8), "ec", "root")
    yield Case("data: a file of the reader's", block(secret, path="secret.txt"), "ec", "say with --root")
    yield Case("data: files of the reader's", block(secret, path=["/etc/*", "~/.ssh/*"]), "ec", "say with --root")
    yield Case(
        "data: sounds of the reader's",
        block("genzoo.datamodules.AudioDataModule", root="private", length=8, sample_rate=8),
        "ec",
        "root",
    )
    points = POINTS["class_path"]
    for arguments in (
        {"train_size": 10**12},
        {"test_size": 10**9},
        {"train_size": -1},
        {"train_size": 128.0},
        {"train_size": "128"},
        {"batch_size": 0},
        {"name": ["ring"]},
        {"name": "circle"},
        {"noise": "much"},
        {"noise": {"class_path": "trap.Trap"}},
        {"seed": "0"},
        {"seed": -1},
        {"colour": "red"},
        {"limit": True},
    ):
        yield Case(f"data: {arguments}", block(str(points), **arguments), "ec")  # type: ignore[arg-type]
    yield Case("data: of another shape", config("data", be=DIGITS), "ec", "shape|plane")
    for value in ("PointsDataModule", 5, [], ["os.system"], True):
        yield Case(f"data: {value!r}", config("data", be=value), ALL, "data is")
    yield Case("data: none", config("data", be=None), "ec", "no `data:`")
    yield Case("data: a misspelt key", config("data", "init_arg", be={}), ALL, "init_arg is unknown")
    yield Case("data: arguments in a list", config("data", "init_args", be=[1]), ALL, "init_args is")
    yield Case("data: no class", config("data", be={"init_args": {}}), ALL, "class_path is missing")


def _model() -> Iterator[Case]:
    for path in (
        "os.system",
        "builtins.eval",
        "builtins.exec",
        "trap.Trap",
        "subprocess.Popen",
        "torch.hub.load",
        "torch.load",
        "torch.nn.modules.module.Module.load_state_dict",
        "genzoo.zoo.hub.publish",
        "genzoo.zoo.latent.vae.math.exp",
        "genzoo.zoo.latent.vae.VAE.__init__",
        "genzoo.fit.run",
        "lightning.pytorch.Trainer",
        "VAE",
    ):
        yield Case(f"model: {path}", config("model", "class_path", be=path), ALL, "none of the classes")
        part = {"class_path": path, "init_args": {"command": "touch pwned"}}
        yield Case(f"model: a part is {path}", argument("likelihood", part), ALL, "none of the classes")
    for value in (
        None,
        5,
        ["os.system"],
        {"class_path": "os.system"},
        "os system",
        "os.system('x')",
        "",
        "\x1b[31mred",
    ):
        yield Case(f"model: class {value!r:.20}", config("model", "class_path", be=value), ALL, "damaged")
    yield Case("model: torch.nn.Linear", config("model", "class_path", be="torch.nn.Linear"), ALL, "part of one")
    for value in (None, 5, "VAE", [], ["VAE"], {}):
        yield Case(f"model: {value!r}", config("model", be=value), ALL, "damaged")
    for value in ([], [1, 2], "x", 7, False):
        yield Case(f"model: arguments {value!r}", config("model", "init_args", be=value), ALL, "init_args is")
    yield Case("model: no arguments", config("model", "init_args", be=None), ALL, "missing a required argument")
    yield Case("model: a misspelt key", config("model", "init_argz", be={}), ALL, "init_argz is unknown")
    for name, values in {
        "shape": [[], [0], [-2], [2.0], "2", [True], [2, 2, 2, 2], [[2]], None, {}],
        "levels": [17.5, True, "17", 1, 0, -3, [17]],
        "latent_dim": [0, -1, 2.0, "2", None, True, [2], {"class_path": "VAE"}],
        "width": [-8, "8", 8.0, [8], False],
        "depth": ["1", -10, 1.0],
        "network": ["lstm", 5, ["mlp"], {}],
        "likelihood": ["Gaussian", "", 0, [], {}, {"scale": 1.0}, False],
        "encoder": ["os.system", {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2}}],
        "beta": ["1", None, [1.0], {}],
        "kl_warmup": [0.5, None, "0"],
        "widht": [8],
        "self": [1],
        "__class__": ["trap.Trap"],
    }.items():
        for value in values:
            yield Case(f"model: {name}={value!r:.30}", argument(name, value), ALL)
    for number in (".nan", ".inf", "-.inf", "1e999"):
        change = appended("config.yaml", f"more: {number}\n") if number == "1e999" else raw("beta", number)
        yield Case(f"model: beta={number}", change, "" if number == "1e999" else ALL)  # 1e999 is a text to YAML
    for name, part in {
        "a part's misspelt argument": {"class_path": "genzoo.zoo.CosineBetas", "init_args": {"stepz": 8}},
        "a part's misspelt key": {"class_path": "genzoo.zoo.CosineBetas", "init_arg": {"steps": 8}},
        "a part's arguments beside its class": {"class_path": "genzoo.zoo.CosineBetas", "steps": 8},
        "a part of another kind": {"class_path": "genzoo.zoo.Simple"},
        "a part that is a model": {"class_path": "genzoo.zoo.VAE", "init_args": {"shape": [2], "levels": None}},
        "a part that is a mapping": {"steps": 8},
        "a part that is empty": {},
        "a part that is false": False,
        "a part's argument as text": {"class_path": "genzoo.zoo.CosineBetas", "init_args": {"steps": "8"}},
        "a part's argument of no use": {"class_path": "genzoo.zoo.CosineBetas", "init_args": {"steps": 0}},
    }.items():
        yield Case(f"model: {name}", argument("schedule", part), ALL, base="ddpm")
    yield Case("model: a device", argument("encoder", linear(2, 4, device="cuda")), ALL, "device")
    yield Case(
        "model: lazy layers",
        argument("encoder", {"class_path": "torch.nn.LazyLinear", "init_args": {"out_features": 4}}),
    )
    yield Case("model: trained by a shell", argument("optimizer", {"class_path": "os.system", "init_args": {}}), "")
    yield Case("model: trained by text", argument("optimizer", "os.system('touch pwned')"), "")
    yield Case("model: another shape than it says", config("shape", be=[3]), ALL, r"shape=\[3\].* its model has")
    yield Case("model: other levels than it says", config("levels", be=17), ALL, "levels=17")
    yield Case("model: other parameters than it says", config("weights", "parameters", be=7), ALL, "parameters=7")
    yield Case("model: a vocabulary that is none", argument("vocabulary", "zzz"), ALL, base="gpt")
    yield Case("model: a vocabulary in JSON", argument("vocabulary", '{"model": []}'), ALL, base="gpt")
    yield Case("model: a deep vocabulary", argument("vocabulary", '{"a":' + "[" * 20_000), ALL, base="gpt")
