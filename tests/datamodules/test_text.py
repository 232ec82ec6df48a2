"""Text: read whole and in order, split by place, windows that cover it, and the same after an interruption."""

import json
import re
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

import genzoo
import genzoo.datamodules.text as text_module
from genzoo.arguments import build_data
from genzoo.callbacks import StartFrom, evaluate
from genzoo.datamodules import TextDataModule
from genzoo.datamodules.text import find_files, find_source
from genzoo.zoo import GPT

VERSE = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n"


@pytest.fixture
def verses(tmp_path: Path) -> Path:
    """A text in which every window says where it is."""
    file = tmp_path / "verses.txt"
    file.write_text("".join(f"{i}: {VERSE}" for i in range(60)), "utf-8")
    return file


def test_it_states_its_data_at_once(verses: Path) -> None:
    data = TextDataModule(str(verses), context_length=16)
    text = verses.read_text()
    assert (data.shape, data.levels, data.num_classes) == ((16,), len(set(text)), None)
    assert data.vocabulary == "".join(sorted(set(text)))
    assert data.decode(data.encode(text)) == text
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        x = next(iter(loader))
        assert x.dtype == torch.int64 and x.shape[1:] == (16,) and 0 <= x.min() <= x.max() < data.levels


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe"])
@pytest.mark.parametrize(("val", "test"), [(0.05, 0.05), (0.1, 0.05), (0.2, 0.5)])
def test_what_is_held_out_is_read_once_and_in_order(verses: Path, tokenizer: str, val: float, test: float) -> None:
    data = TextDataModule(
        str(verses),
        context_length=16,
        tokenizer=tokenizer,
        vocab_size=270,
        batch_size=5,
        val_fraction=val,
        test_fraction=test,
    )
    text = verses.read_text()
    train, *held_out = (data.decode(data.sources[split].tokens) for split in ("train", "val", "test"))
    assert train + "".join(held_out) == text
    loaders = (data.val_dataloader(), data.test_dataloader())
    for own, fraction, loader in zip(held_out, (val, test), loaders, strict=True):
        assert abs(len(own) - fraction * len(text)) <= 1
        read = data.decode(torch.cat(list(loader)).flatten())
        assert own.startswith(read) and len(data.encode(own[len(read) :])) < 16


def test_shakespeare_is_trained_on_its_customary_part(tmp_path: Path) -> None:
    (tmp_path / "plays").write_bytes(bytes(97 + i % 26 for i in range(1_115_394)))
    data = TextDataModule(str(tmp_path / "plays"), context_length=1)
    assert [len(data.sources[split].tokens) for split in ("train", "val", "test")] == [1_003_854, 55_770, 55_770]


def test_training_windows_come_from_the_rest_and_begin_everywhere(tmp_path: Path) -> None:
    text = " ".join(f"{i:04}" for i in range(1000))  # no sixteen characters occur twice
    (tmp_path / "text").write_text(text)
    data = TextDataModule(str(tmp_path / "text"), context_length=16, batch_size=4)
    train = text[: int(0.9 * len(text))]
    loader, seen, begins = data.train_dataloader(), torch.zeros(len(train)), set()
    assert len(loader) == (len(train) - 15) // 16 // 4
    for _ in range(40):
        for window in torch.cat(list(loader)):
            piece = data.decode(window)
            begin = train.find(piece)
            assert begin >= 0
            begins.add(begin)
            seen[begin : begin + 16] += 1
    assert len(begins) > 0.8 * len(train)
    middle = seen[len(train) // 4 : -len(train) // 4]  # an epoch sees each character about once
    assert 35 < middle.mean() < 45 and middle.min() > 10


def test_an_epoch_is_the_same_for_the_same_seed_and_another_one_is_not(verses: Path) -> None:
    def epochs(seed: int) -> list[torch.Tensor]:
        loader = TextDataModule(str(verses), context_length=16, batch_size=4, seed=seed).train_dataloader()
        return [torch.cat(list(loader)) for _ in range(2)]

    (first, second), again, other = epochs(0), epochs(0), epochs(1)
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert not torch.equal(first, second) and not torch.equal(first, other[0])


def test_it_goes_on_in_the_middle_of_an_epoch(verses: Path) -> None:
    data = TextDataModule(str(verses), context_length=16, batch_size=4)
    loader = data.train_dataloader()
    list(loader)
    whole = list(loader)
    interrupted = data.train_dataloader()
    list(interrupted)
    batches = iter(interrupted)
    for _ in range(5):
        next(batches)
    resumed = TextDataModule(str(verses), context_length=16, batch_size=4).train_dataloader()
    resumed.load_state_dict(interrupted.state_dict())
    rest = list(resumed)
    assert len(rest) == len(whole) - 5
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[5:], strict=True))


def test_ranks_share_the_windows_out(verses: Path) -> None:
    data = TextDataModule(str(verses), context_length=16, batch_size=4)
    plan, source = data.val_dataloader().plan, data.sources["val"]
    parts = [type(plan)(len(source), 4, rank=rank, world_size=2).batches(0) for rank in (0, 1)]
    assert torch.equal(torch.cat([row for part in parts for row in part]), torch.arange(len(source)))


def test_limit_takes_the_first_windows(verses: Path) -> None:
    data = TextDataModule(str(verses), context_length=16, batch_size=2, limit=6)
    text = verses.read_text()[: 6 * 16 + 31]
    assert len(data.train_dataloader()) == 3
    assert all(data.decode(window) in text for batch in data.train_dataloader() for window in batch)


def test_files_folders_and_globs_are_one_text_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "deep/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"<{name}>" * 20)
    names = [tmp_path / name for name in ("a.md", "b.txt", "deep/c.txt")]
    assert find_files(str(tmp_path)) == names
    assert find_files(f"{tmp_path}/**/*.txt") == names[1:]
    assert find_files([str(names[1]), f"{tmp_path}/*.md", f"{tmp_path}/b.*"]) == names[:2]
    (tmp_path / "z.txt").symlink_to(names[1])  # the same text under another name
    assert find_files([str(tmp_path), f"{tmp_path}/deep/../b.txt"]) == names
    (tmp_path / "z.txt").unlink()
    data = TextDataModule(str(tmp_path), context_length=20)
    assert data.decode(data.sources["train"].tokens).startswith("<a.md>" * 20 + "\n<b.txt>")


def test_hidden_files_are_no_text_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", ".git/HEAD", "__MACOSX/._a.txt", "deep/.swp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\xfe litter")
    texts = [tmp_path / name for name in ("a.txt", "b.txt", "deep/c.txt")]
    for file in texts:
        file.write_text(VERSE)
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "deep" / "round").symlink_to(tmp_path)  # 2^40 ways to walk
    with pytest.warns(UserWarning, match=r"3 files are read. Left out: 5 hidden .*; 2 found again by another link"):
        assert find_files(str(tmp_path)) == texts
    assert find_files(f"{tmp_path}/**") == find_files(f"{tmp_path}/**/*") == find_files(f"{tmp_path}/**/**") == texts
    assert find_files(f"{tmp_path}/*") == texts[:2]
    assert find_files(f"{tmp_path}/**/deep/*.txt") == texts[2:]
    (tmp_path / ".notes").write_text(VERSE)
    assert find_files(f"{tmp_path}/.notes") == [tmp_path / ".notes"]  # asked for by its name


def test_what_exists_is_meant_by_its_name_whatever_is_in_it(tmp_path: Path) -> None:
    book = tmp_path / "Books [1999]" / "One [1].txt"
    for file in (book, book.with_name("One 1.txt"), tmp_path / "Books 1" / "Two.txt"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(file.name)
    assert find_files(str(book)) == [book]
    both = [book.with_name("One 1.txt"), book]
    assert find_files(f"{book.parent}/*.txt") == find_files(f"{book.parent}/**/*.txt") == both
    assert find_files(f"{book.parent}/One [1-9].txt") == both[:1]
    assert find_files(f"{tmp_path}/Books [1-9]/*") == [tmp_path / "Books 1" / "Two.txt"]


def test_linked_folders_are_read(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "there")
    wanted = [tmp_path / "here" / "a.txt", tmp_path / "here" / "linked" / "a.txt"]
    assert find_files(str(tmp_path / "here")) == find_files(f"{tmp_path}/here/**/*.txt") == wanted


@pytest.mark.parametrize(
    "pattern", ["**", "**/*", "**/b/*.txt", "a/**/c.txt", "**/a/**/b/**", "**/[ab]/?.txt", "*/*/*"]
)
def test_globs_mean_what_they_mean_to_python(tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import glob

    for name in ("c.txt", "a/c.txt", "a/b/c.txt", "b/a/b/d.txt", "b/a/c/b/e.md", "b/long.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    expected = sorted(Path(n) for n in glob.glob(f"{tmp_path}/{pattern}", recursive=True) if Path(n).is_file())
    assert find_files(f"{tmp_path}/{pattern}") == expected and expected
    monkeypatch.chdir(tmp_path)
    assert [tmp_path / file for file in find_files(pattern)] == expected


def test_the_mark_at_the_beginning_of_a_file_is_no_text(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(VERSE, "utf-8-sig")
    data = TextDataModule(str(tmp_path), context_length=4)
    assert data.vocabulary == "".join(sorted(set(VERSE))) and "\ufeff" not in data.vocabulary


def test_the_standard_library_is_its_own_source_alone() -> None:
    files = find_source("stdlib", Path("nowhere"))
    names = [file.as_posix() for file in files]
    assert names == sorted(names) and len(names) > 200
    library = Path(json_file := sys.modules["json"].__file__ or "").parents[1]
    assert {"ast.py", "json/__init__.py", "asyncio/tasks.py"} <= {f.relative_to(library).as_posix() for f in files}
    assert json_file in names
    assert not [name for name in names if "/test/" in name or "site-packages" in name or "_sysconfigdata" in name]
    data = TextDataModule(source="stdlib", tokenizer="byte", context_length=64)
    assert data.levels == 256 and data.vocabulary == "bytes"
    assert len(data.sources["train"]) * 64 > 1_000_000
    assert "import" in data.decode(data.sources["train"].tokens[:20_000])


def test_byte_pairs_are_learned_once(verses: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    first = TextDataModule(str(verses), context_length=8, tokenizer="bpe", vocab_size=300)
    assert [file.suffix for file in (tmp_path / "cache" / "text").iterdir()] == [".npz"]
    monkeypatch.setattr(text_module.BytePairs, "of", None)
    again = TextDataModule(str(verses), context_length=8, tokenizer="bpe", vocab_size=300)
    assert again.vocabulary == first.vocabulary
    assert np.array_equal(again.sources["train"].tokens, first.sources["train"].tokens)


DAMAGES = [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"{}", lambda b: b[:100] + bytes(200) + b[300:]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again(damage, verses: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    first = TextDataModule(str(verses), context_length=8, tokenizer="bpe", vocab_size=300)
    (cached,) = (tmp_path / "cache" / "text").iterdir()
    cached.write_bytes(damage(cached.read_bytes()))
    with pytest.warns(UserWarning, match=r"bpe-.*\.npz is damaged, and is made again: \S"):
        again = TextDataModule(str(verses), context_length=8, tokenizer="bpe", vocab_size=300)
    assert again.vocabulary == first.vocabulary
    assert np.array_equal(again.sources["train"].tokens, first.sources["train"].tokens)


def test_what_cannot_be_kept_is_used_all_the_same(
    verses: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(UserWarning, match=r"byte pairs are not kept in .*\.npz, .*No space left on device"):
        data = TextDataModule(str(verses), context_length=8, tokenizer="bpe", vocab_size=300)
    assert data.levels == 300


def test_only_the_training_text_has_a_say_in_what_is_a_token(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("abcd " * 180 + "zyxw " * 20)
    data = TextDataModule(str(tmp_path / "text"), context_length=8, tokenizer="bpe", vocab_size=300)
    assert len(data.encode(" abcd")) == 1 and len(data.encode(" zyxw")) == 5


def test_shakespeare_is_downloaded_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served.txt"
    served.write_bytes(VERSE.encode() * 50)
    monkeypatch.setattr(text_module, "SHAKESPEARE", served.as_uri())
    with pytest.raises(FileNotFoundError, match="not the text that it was"):
        TextDataModule(source="shakespeare", root=str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(
        text_module, "SHAKESPEARE_SHA256", text_module.hashlib.sha256(served.read_bytes()).hexdigest()
    )
    data = TextDataModule(source="shakespeare", root=str(tmp_path / "data"), context_length=16)
    assert data.vocabulary == "".join(sorted(set(VERSE)))
    served.unlink()
    TextDataModule(source="shakespeare", root=str(tmp_path / "data"), context_length=16)  # from the disk
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        TextDataModule(source="shakespeare", root=str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "one of them must be given"),
        ({"path": "x", "source": "stdlib"}, ValueError, "not both"),
        ({"path": "nowhere.txt"}, FileNotFoundError, r"there is no file .*nowhere\.txt"),
        ({"source": "bible"}, ValueError, "must be one of shakespeare, stdlib"),
        ({"path": "empty.txt"}, ValueError, "no text in "),
        (
            {"path": "short.txt", "context_length": 9, "val_fraction": 0.1},
            ValueError,
            r"window takes 9 .* 17 for training, 2 for validation and 1 for testing: .* 1 or less",
        ),
        ({"path": ""}, ValueError, "path is ''.* the current folder is '.'"),
        ({"path": ["short.txt", ""]}, ValueError, "give a file, a folder or a glob"),
        ({"path": []}, ValueError, r"path is \[\]"),
        ({"path": "same.txt"}, ValueError, r"the text is the character 'a' and no other \(same\.txt\)"),
        ({"path": "one.txt", "tokenizer": "byte"}, ValueError, "1 characters long.* leave 0 for training"),
        ({"path": "latin.txt"}, ValueError, r"latin\.txt is no text in UTF-8"),
        ({"path": "zeros.txt"}, ValueError, r"zeros\.txt is no text in UTF-8 \(it holds NUL"),
        ({"path": "wide.txt"}, ValueError, r"wide\.txt is no text in UTF-8 \(it holds NUL"),
        ({"path": "short.txt", "tokenizer": "words"}, ValueError, "must be one of character, byte, bpe"),
        ({"path": "short.txt", "tokenizer": "bpe", "vocab_size": 100}, ValueError, "vocab_size 100"),
        ({"path": "short.txt", "val_fraction": 0.95}, ValueError, r"val_fraction is 0\.95 .*test_fraction 0\.05"),
        ({"path": "short.txt", "val_fraction": 0.0}, ValueError, r"val_fraction is 0\.0 .*above 0"),
        ({"path": "short.txt", "test_fraction": 0.0}, ValueError, r"test_fraction 0\.0.*above 0"),
        ({"path": "short.txt", "context_length": 0}, ValueError, "context_length is 0"),
        ({"path": "short.txt", "context_length": 1, "batch_size": 0}, ValueError, "batch_size is 0"),
    ],
)
def test_bad_input(
    options: dict, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("")
    Path("short.txt").write_text("abcdefghij" * 2)
    Path("same.txt").write_text("a" * 40)
    Path("one.txt").write_text("a")
    Path("latin.txt").write_bytes("café".encode("latin-1") * 20)
    Path("zeros.txt").write_bytes(b"abcdefghij" * 2 + bytes(512))  # as in an archive
    Path("wide.txt").write_text("abcdefghij" * 2, encoding="utf-16-le")
    with pytest.raises(error, match=message):
        TextDataModule(**options)


def speaking(verses: Path, **options: Any) -> TextDataModule:
    return TextDataModule(str(verses), context_length=16, batch_size=8, **options)


def test_a_text_of_other_tokens_is_refused_wherever_it_would_be_measured_or_learned(
    verses: Path, tmp_path: Path
) -> None:
    """All numbers of one lie within those of the other, and would be taken for its letters."""
    other = tmp_path / "other.txt"
    other.write_text(verses.read_text().replace("e", "é"), "utf-8")
    ours, theirs = speaking(verses), speaking(other)
    assert ours.levels == theirs.levels
    model = GPT(ours.shape, ours.levels, vocabulary=ours.vocabulary, width=8, depth=1, heads=1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=1, enable_checkpointing=False, limit_val_batches=1, **quiet)
    says = "GPT: its vocabulary is .* but that of the data .* give the datamodule the model's"
    for act in (trainer.fit, trainer.validate, trainer.test):
        with pytest.raises(ValueError, match=says):
            act(model, datamodule=theirs)
    with pytest.raises(ValueError, match=says):
        evaluate(model, theirs, only=["likelihood"], progress=False)
    entry = genzoo.publish(model, "verses/gpt", to=tmp_path / "entry")
    learner = GPT(theirs.shape, theirs.levels, vocabulary=theirs.vocabulary, width=8, depth=1, heads=1)
    begun = Trainer(max_steps=1, enable_checkpointing=False, callbacks=[StartFrom(str(entry))], **quiet)
    with pytest.raises(ValueError, match=f"but that of {re.escape(str(entry))}"):
        begun.fit(learner, datamodule=theirs)
    kept = Trainer(max_steps=1, enable_checkpointing=False, limit_val_batches=1, **quiet)
    kept.fit(model, datamodule=ours)
    kept.save_checkpoint(tmp_path / "ours.ckpt")
    for act in (trainer.fit, trainer.test):  # a model that the new text has built, and weights of the old one
        learner = GPT(theirs.shape, theirs.levels, vocabulary=theirs.vocabulary, width=8, depth=1, heads=1)
        with pytest.raises(ValueError, match=r"GPT: its vocabulary is .* but that of the checkpoint"):
            act(learner, datamodule=theirs, ckpt_path=tmp_path / "ours.ckpt")


@pytest.mark.parametrize("stated", ["", None])
def test_a_run_s_own_recipe_says_nothing_of_a_vocabulary(stated: Any, verses: Path) -> None:
    """The command line writes down all arguments, also those that are none."""
    model = GPT((16,), 4, vocabulary="abcd", width=8, depth=1, heads=1)
    short = verses.with_name("short.txt")
    short.write_text("abcd dcba".replace(" ", "") * 200)
    block = {"class_path": "TextDataModule", "init_args": {"context_length": 16, "vocabulary": stated}}
    given = Namespace(root=str(short), allow=[])
    for module, vocabulary in ((model, "abcd"), (None, "abcd")):
        assert build_data(block, given, module, own=True).vocabulary == vocabulary  # type: ignore[attr-defined]
    short.write_text("abc" * 200)
    assert build_data(block, given, model, own=True).vocabulary == "abcd"  # type: ignore[attr-defined]


def test_an_entry_is_measured_on_another_text_in_its_own_vocabulary(verses: Path, tmp_path: Path) -> None:
    from genzoo.cli import main

    data = speaking(verses)
    model = GPT(data.shape, data.levels, vocabulary=data.vocabulary, width=8, depth=1, heads=1)
    short = tmp_path / "short.txt"
    short.write_text(VERSE * 20, "utf-8")
    for number, trained_on in enumerate((data, speaking(short, vocabulary=data.vocabulary))):
        entry = Path(genzoo.publish(model, "verses/gpt", data=trained_on, to=tmp_path / str(number)))
        assert "vocabulary=" not in (entry / "README.md").read_text()
        assert (entry / "config.yaml").read_text().count("vocabulary:") == 1  # the model's
        main(
            ["evaluate", str(entry), "--root", str(short), "--only", "likelihood", "--out", str(tmp_path / "m.json")]
        )
        figures = json.loads((tmp_path / "m.json").read_text())["figures"]
        (nll,) = (figure["value"] for figure in figures if figure["name"] == "nll")
        found = evaluate(model, speaking(short, vocabulary=data.vocabulary), only=["likelihood"], progress=False)
        assert nll == pytest.approx(next(f["value"] for f in found["figures"] if f["name"] == "nll"), rel=1e-5)


def test_a_text_is_read_in_a_trained_model_s_vocabulary(verses: Path, tmp_path: Path) -> None:
    """What it measures and learns there is what its tokens meant."""
    ours = speaking(verses)
    model = GPT(ours.shape, ours.levels, vocabulary=ours.vocabulary, width=8, depth=1, heads=1)
    short = tmp_path / "short.txt"
    short.write_text(VERSE * 20, "utf-8")
    assert speaking(short).vocabulary != ours.vocabulary
    data = speaking(short, vocabulary=model.vocabulary.statement)
    assert data.levels == ours.levels and data.decode(data.sources["test"].tokens) in VERSE * 20
    found = evaluate(model, data, only=["likelihood"], progress=False)
    (nll,) = (figure for figure in found["figures"] if figure["name"] == "nll")
    text = data.decode(torch.cat(list(data.test_dataloader())).flatten())
    assert nll["value"] == pytest.approx(
        -float(model.log_prob(model.tokens(text).view(-1, 16)).double().mean()), rel=1e-6
    )
    strange = tmp_path / "strange.txt"
    strange.write_text(VERSE * 20 + "ß", "utf-8")
    with pytest.raises(ValueError, match="are not in the vocabulary: 'ß'"):
        speaking(strange, vocabulary=ours.vocabulary)


def test_a_model_that_takes_a_vocabulary_is_given_the_data_s(verses: Path, tmp_path: Path) -> None:
    from running import QUIET, last_run

    from genzoo.cli import main

    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        f"""\
model: {{class_path: GPT, init_args: {{width: 8, depth: 1, heads: 1}}}}
data: {{class_path: TextDataModule, init_args: {{path: "{verses}", context_length: 16}}}}
trainer:
  max_steps: 2
  default_root_dir: {tmp_path / "runs"}
  accelerator: cpu
  callbacks:
    - {{class_path: SampleLogger, init_args: {{num_samples: 2}}}}
    - {{class_path: Publish, init_args: {{name: a/b}}}}
"""
    )
    main(["fit", "--config", str(recipe), *QUIET])
    run = last_run(tmp_path)
    model = genzoo.load(run / "entry")
    assert model.text(model.tokens("thee")) == "thee"
    stated = (run / "entry" / "config.yaml").read_text()
    assert "hint: verses.txt" in stated and str(tmp_path) not in stated  # where the text lies is nobody's business
    assert set((run / "entry" / "samples.txt").read_text()) <= set(verses.read_text()) | {"-", "\n"}


def test_files_that_say_the_same_are_counted(tmp_path: Path) -> None:
    """The last of a corpus are for testing: a copy of them among the first has been read in training."""
    for name, text in {
        "a.md": "one " * 90,
        "b (1).md": "two " * 80,
        "b.md": "two " * 80,
        "c.md": "",
        "d.md": "",
    }.items():
        (tmp_path / name).write_text(text)
    with pytest.warns(UserWarning, match=r"1 of 5 files are copies of others \(such as .*b\.md, of .*b \(1\)\.md\)"):
        TextDataModule(str(tmp_path), context_length=8)
    (tmp_path / "b.md").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TextDataModule(str(tmp_path), context_length=8)
