"""`genzoo fit --from`: another model's architecture and weights, one's own data and optimiser."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import genzoo
from genzoo.cli import main
from genzoo.zoo import MADE

QUIET = [f"--trainer.enable_{name}=false" for name in ("progress_bar", "model_summary")] + [
    "--trainer.accelerator=cpu"
]
DATA: dict[str, Any] = {"class_path": "DigitsDataModule", "init_args": {"limit": 300, "val_size": 100}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(**more: Any) -> str:
    Path("mine.yaml").write_text(yaml.safe_dump({"data": DATA, "trainer": {"max_steps": 20}} | more))
    return "mine.yaml"


def fit(*arguments: str) -> dict[str, Any]:
    """The resolved configuration of a run, which then is the next of `done`."""
    main(["fit", "--config", *arguments, *QUIET])
    (config,) = Path("runs").rglob("config.yaml")
    said = yaml.safe_load(config.read_text())
    Path("done").mkdir(exist_ok=True)
    config.parent.rename(Path("done") / str(len(list(Path("done").iterdir()))))
    return said


def last_loss(run: str) -> float:
    """Of its validations."""
    with (Path(run) / "metrics.csv").open() as file:
        return [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]][-1]


def test_it_is_better_than_as_many_steps_from_scratch_and_keeps_the_recipe_s_optimiser() -> None:
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4}}
    model = {"class_path": "FlowMatching", "init_args": {"optimizer": optimizer}}
    said = fit(recipe(model=model), "--from", "digits/flow-matching")
    fit(recipe(model=model))
    assert last_loss("done/0") < 0.5 * last_loss("done/1")
    assert said["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1e-4
    own = yaml.safe_load(
        (Path(genzoo.__file__).parent.parent / "zoo/weights/digits/flow-matching/config.yaml").read_text()
    )
    assert said["model"]["init_args"]["width"] == own["model"]["init_args"]["width"]
    assert [block["class_path"] for block in said["trainer"]["callbacks"]] == ["genzoo.callbacks.StartFrom"]


def test_a_recipe_need_not_say_anything_of_the_model() -> None:
    """Nor need it be an entry that it begins with: the folder of a run will do."""
    fit(recipe(model={"class_path": "MADE", "init_args": {"width": 16}}))
    before = genzoo.load("done/0").state_dict()
    still = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0"]
    said = fit(recipe(trainer={"max_steps": 1}), "--from=done/0", *still)
    assert said["model"]["class_path"].endswith("MADE") and said["model"]["init_args"]["width"] == 16
    after = genzoo.load("done/1").state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("tokenizer", ["character", "byte"])
def test_another_text_is_read_in_the_vocabulary_of_the_model(
    tokenizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though it has fewer characters, in another order; a text with others is refused."""
    for name, text in (
        ("first", "the cab faced a bad head; "),
        ("second", "a dead bee faded; "),
        ("third", "a zebra. "),
    ):
        Path(f"{name}.txt").write_text(text * 40)
    data = {"class_path": "TextDataModule", "init_args": {"path": "first.txt", "tokenizer": tokenizer}}
    data["init_args"] |= {"context_length": 8, "batch_size": 4}
    model = {"class_path": "GPT", "init_args": {"width": 8, "depth": 1, "heads": 1}}
    begun = fit(recipe(model=model, data=data, trainer={"max_steps": 1}))
    assert begun["data"]["init_args"]["vocabulary"] == ""
    known = genzoo.load("done/0").vocabulary
    data["init_args"]["path"] = "second.txt"
    still = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0"]
    said = fit(recipe(data=data, trainer={"max_steps": 1}), "--from=done/0", *still)
    assert said["data"]["init_args"]["vocabulary"] == known.statement == genzoo.load("done/1").vocabulary.statement
    data["init_args"]["path"] = "third.txt"
    if tokenizer == "character":
        capsys.readouterr()
        with pytest.raises(SystemExit):
            fit(recipe(data=data, trainer={"max_steps": 1}), "--from=done/0")
        assert "characters are not in the vocabulary: '.rz'" in capsys.readouterr().err


def test_what_does_not_fit_is_named_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    genzoo.publish(MADE((1, 4, 4), 17, width=16), "own/made", to="entry")
    with pytest.raises(SystemExit):
        main(["fit", "--config", recipe(), "--from", "entry", *QUIET])
    said = capsys.readouterr().err
    assert "the weights of entry do not fit this MADE" in said and "16" in said and said.count("\n") == 1
    assert not Path("runs").exists() or not any(Path("runs").rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "--config", "mine.yaml", "--from"], "give `fit` one model to begin with"),
        (["fit", "--config", "mine.yaml", "--from", "digits/vae", "--from", "digits/ae"], "one model to begin with"),
        (["validate", "--config", "mine.yaml", "--from", "digits/vae"], "give `fit` one model"),
        (["fit", "--config", "mine.yaml", "--from", "no/such"], "no/such"),
    ],
)
def test_bad_sources_are_refused_in_a_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and says in capsys.readouterr().err


def test_a_model_of_a_foreign_class_is_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """What an entry of anybody's names is not imported on the way."""
    genzoo.publish(MADE((1, 8, 8), 17, width=16), "own/made", to="entry")
    config = Path("entry/config.yaml")
    config.write_text(config.read_text().replace("genzoo.zoo.MADE", "os.system"))
    with pytest.raises(SystemExit):
        main(["fit", "--config", recipe(), "--from", "entry", *QUIET])
    assert "os.system" in capsys.readouterr().err
