"""A recipe or a command line that is spelt wrongly is refused in one line, which says what was perhaps meant."""

import copy
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import refused

from genzoo import commands, recipes
from genzoo.cli import main
from genzoo.fit import GenzooCLI
from genzoo.parsing import parsable

Captured = pytest.CaptureFixture[str]
Place = tuple[str | int, ...]

QUICK = ("digits/vae", "digits/gan", "mnist/iwae")  # together they hold every kind of key
LONGEST = 199


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own, from which nothing is built and so nothing trained: a recipe is only read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(GenzooCLI, "instantiate_classes", lambda self: sys.exit(0))
    return tmp_path


def read(recipe: Any, capsys: Captured) -> str | None:
    """What a user is told of this recipe; None if it would have been trained."""
    Path("my.yaml").write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe, sort_keys=False))
    try:
        main(["fit", "--config", "my.yaml"])
    except SystemExit as ended:
        error = capsys.readouterr().err.removeprefix("Seed set to 0\n").strip()
        assert ended.code in (0, 2)
        if ended.code == 0:
            return None
        assert error.startswith("genzoo: error: ") and "\n" not in error and len(error) <= LONGEST, error
        assert "Namespace" not in error and "<class" not in error, error
        return error
    raise AssertionError("it went on")


# ------------------------------------------------------------------------------------------------ every key


def places(node: Any, place: Place = ()) -> Iterator[Place]:
    """The place of every key, of which the last is the key itself."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*place, key)
            yield from places(value, (*place, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from places(value, (*place, i))


def misspelt(key: str, among: set[str]) -> str:
    """The key with a letter dropped, or else two swapped, or one doubled; not as another key is spelt."""
    middle = range(len(key) // 2, len(key))
    dropped = [key[:i] + key[i + 1 :] for i in middle] if len(key) > 2 else []
    swapped = [key[:i] + key[i + 1] + key[i] + key[i + 2 :] for i in middle[:-1]]
    return next(wrong for wrong in [*dropped, *swapped, key + key[-1]] if wrong not in among | {key})


def with_key(recipe: Any, place: Place, wrong: str) -> Any:
    """The recipe with one of its keys renamed, in the same order."""
    changed = copy.deepcopy(recipe)
    parent = changed
    for step in place[:-1]:
        parent = parent[step]
    items = [(wrong if key == place[-1] else key, value) for key, value in parent.items()]
    parent.clear()
    parent.update(items)
    return changed


def check_every_key(name: str, capsys: Captured, seen: set[Place]) -> None:
    """Each key of a recipe, but for those that stand at a place that was `seen`, whatever its index in a list."""
    recipe = yaml.safe_load(recipes.find(name).read_text())
    if name.startswith("images/"):
        recipe["data"]["init_args"]["root"] = "photos"  # as the command line gives it
    assert read(recipe, capsys) is None
    everything = list(places(recipe))
    for place in everything:
        kind = tuple("[]" if isinstance(step, int) else step for step in place)
        if kind in seen:
            continue
        seen.add(kind)
        wrong = misspelt(str(place[-1]), {str(other[-1]) for other in everything if other[:-1] == place[:-1]})
        error = read(with_key(recipe, place, wrong), capsys)
        assert error is not None, f"{name}: {'.'.join(map(str, place))} spelt {wrong} passes unnoticed"
        assert wrong in error and error.endswith(f"did you mean {place[-1]}?"), error


def test_every_kind_of_key(capsys: Captured) -> None:
    seen: set[Place] = set()
    for name in QUICK:
        check_every_key(name, capsys, seen)
    assert len(seen) > 60


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.names())
def test_every_key_of_every_recipe(name: str, capsys: Captured) -> None:
    check_every_key(name, capsys, Everything())


class Everything(set[Place]):
    """Has seen nothing, ever."""

    def __contains__(self, place: object) -> bool:
        return False


# ---------------------------------------------------------------------------------- values, and command lines


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--config=digits/vea", "digits/vae"),
        ("--model=VEA", "VAE"),
        ("--model.class_pat=VAE", "class_path"),
        ("--model.latentdim=3", "latent_dim"),
        ("--model.init_args.latentdim=3", "latent_dim"),
        ("--model.optimizr.lr=3", "optimizer"),
        ("--model.optimizer.lrr=3", "lr"),
        ("--model.optimizer=AdmW", "AdamW"),
        ("--model.optimizer=torch.optim.AdmW", "AdamW"),
        ("--model.optimizer=torch.optm.AdamW", "optim"),
        ("--model.optimizer=genzoo.zoo.Moun", "Muon"),
        ("--model.lr_scheduler=torch.optim.lr_scheduler.OneCycle", "OneCycleLR"),
        ("--model.lr_scheduler.total_step=3", "total_steps"),
        ("--model.likelihood=Bernouli", "Bernoulli"),
        ("--model.likelihood.mixture=3", "mixtures"),
        ("--model.network=resnt", "resnet"),
        ("--data=DigitDataModule", "DigitsDataModule"),
        ("--data.batchsize=3", "batch_size"),
        ("--data.binarize=dinamic", "dynamic"),
        ("--modl.latent_dim=3", "model"),
        ("--trianer.max_epochs=3", "trainer"),
        ("--trainer.max_epoch=3", "max_epochs"),
        ("--trainer.precision=bf61-mixed", "bf16-mixed"),
        ("--trainer.logger=CVSLogger", "CSVLogger"),
        ("--trainer.callbacks+=EAM", "EMA"),
        ("--trainer.callbacks+=EarlyStoping", "EarlyStopping"),
        ("--trainer.callbacks.evaluation.num_sample=3", "num_samples"),
        ("--trainer.callbacks.card.license=mine", "licence"),
        ("--trainer.callbacks.dtype=float61", "float16"),
        ("--seed_everythin=3", "seed_everything"),
        ("--ckpt_pat=last.ckpt", "ckpt_path"),
    ],
)
def test_an_option_is_spelt_wrongly(option: str, meant: str, capsys: Captured) -> None:
    error = refused(["fit", "--config", "digits/vae", option], capsys)
    assert len(error) <= LONGEST and error.endswith("?")
    assert meant in error.partition("did you mean ")[2], error


@pytest.mark.parametrize("command", commands.names())
def test_every_option_of_every_command(command: str, capsys: Captured) -> None:
    options = [option for option in commands.parser(command)._option_string_actions if option.startswith("--")]
    for option in options:
        wrong = f"--{misspelt(option[2:], {other[2:] for other in options})}"
        error = refused([command, f"{wrong}=3"], capsys)
        assert f"{wrong} is not accepted; did you mean {option}?" in error and len(error) <= LONGEST


def test_a_choice_is_spelt_wrongly(capsys: Captured) -> None:
    publish = ["publish", "--ckpt_path=last.ckpt", "--name=mine", "--dtype=float61"]
    assert "did you mean float16?" in refused(publish, capsys)
    assert "did you mean --num_samples?" in refused(["sample", "digits/vae", "--num", "3"], capsys)  # nor passes
    assert "arguments are required: model" in refused(["sample"], capsys)
    assert "did you mean temperature?" in refused(["sample", "shakespeare/gpt", "--set", "temprature=1"], capsys)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: [", "my.yaml is not YAML"),
        ("day: 2020-13-45", "my.yaml is not YAML: month must be in 1..12"),
        ("[" * 20_000, "nested too deeply"),
        ("", "it does not hold `key: value`"),
        ("[1, 2]", "it does not hold `key: value`"),
        ("model: {class_path: VAE, class_path: GAN}", "line 1: 'class_path' is given twice"),
        ("trainer:\n  max_steps: 3\n  max_steps: 4", "line 3: 'max_steps' is given twice"),
        ("data: {class_path: 3}", "'class_path' must be a class's name"),
        ("data: {class_path: DigitsDataModule, init_args: [3]}", "'init_args' must be a mapping"),
        ("data: {class_path: VAE}", "VAE is of another kind"),
        ("trainer: 3", "trainer is 3, but a mapping of arguments is expected"),
        ("trainer: {max_steps: null}", "trainer.max_steps is null, but int is expected"),
        ("trainer: {callbacks: [{class_path: EMA, init_args: {decay: null}}]}", "decay is null, but float is"),
        ("model: {init_args: {optimizer: {init_args: {lr: abc}}}}", "optimizer.lr: expected float, but given abc"),
        ("model: {init_args: {optimizer: [3]}}", "model.optimizer: expected a class, but given [3]"),
        ("seed_everything: 99999999999999999999", "not in bounds"),
        (f"seed_everything: {10**400}", "not in bounds"),
    ],
)
def test_a_file_that_is_no_recipe(text: str, says: str, capsys: Captured) -> None:
    Path("my.yaml").write_text(text)
    error = refused(["fit", "--config", "digits/vae", "--config", "my.yaml"], capsys)
    assert says in error.removeprefix("Seed set to 0"), error


def test_arguments_may_be_called_nearly_so() -> None:
    Path("my.yaml").write_text("model: {init_args: {class: 1, init: 2, init_args_scale: 3, kwargs: {path: x}}}")
    assert parsable(Path("my.yaml")) == Path("my.yaml")


# ------------------------------------------------------------------------------------------------- mutations

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**18,
    -(10**400),
    1e308,
    float("nan"),
    "",
    "abc",
    "é\n\t\x1b[31m",
    "3",
    [],
]
ODD += [
    {},
    [None],
    [[]],
    [1, "a", {}],
    {"a": {"b": [1, {"c": None}]}},
    {"class_path": "os.system"},
    {"class_path": 3},
]
ODD += [{"class_path": "EMA", "init_args": [1]}, {"init_args": {"decay": 1}}, {1: 2}, {None: None}, [[[[[[]]]]]]]


def mutated(recipe: Any, rng: random.Random) -> Any:
    """The recipe with a value replaced, nested, moved to another place, or left out, once or a few times."""
    changed = copy.deepcopy(recipe)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        *way, last = rng.choice(list(places(changed)))
        parent = changed
        for step in way:
            parent = parent[step]
        elsewhere = changed
        for step in rng.choice(list(places(changed))):
            elsewhere = elsewhere[step]
        change = rng.choice(["odd", "odd", "odd", "list", "mapping", "moved", "dropped", "text"])
        if change == "dropped":
            del parent[last]
            if not changed:
                return changed
        else:
            value = parent[last]
            new = {"odd": rng.choice(ODD), "list": [value], "mapping": {last: value}, "text": str(value)}
            parent[last] = copy.deepcopy(elsewhere if change == "moved" else new[change])
    return changed


def check_mutations(number: int, seed: int, capsys: Captured) -> int:
    rng = random.Random(seed)
    known = [yaml.safe_load(recipes.find(name).read_text()) for name in recipes.names()]
    said = [read(mutated(rng.choice(known), rng), capsys) for _ in range(number)]
    return sum(error is not None for error in said)


def test_mutated_recipes(capsys: Captured) -> None:
    assert check_mutations(30, 0, capsys) > 15


@pytest.mark.slow
def test_two_thousand_mutated_recipes(capsys: Captured) -> None:
    print(f"{check_mutations(2000, 1, capsys)} of 2000 are refused")
