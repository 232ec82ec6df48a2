"""`genzoo score` and `genzoo complete`: one's own files and rows, from the shell to the answer."""

import csv
import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from fake_data import write_wav
from PIL import Image
from pyarrow import parquet
from running import refused
from torch import Tensor

import genzoo
from genzoo.cli import main
from genzoo.commands.score import Ends
from genzoo.datamodules import ArrayDataModule, AudioDataModule, ImageFolderDataModule
from genzoo.own_data import OwnData, table
from genzoo.zoo import (
    GPT,
    MADE,
    VAE,
    Classifier,
    FlowMatching,
    MaskedDiffusion,
    PerDatum,
    PixelCNN,
    WaveNet,
    ZooModule,
)
from genzoo.zoo.media import CURVE, GAP, RULE, Picture, render
from genzoo.zoo.modality import to_grid

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def published(module: ZooModule) -> ZooModule:
    """The module, in eval mode, as the entry `model` has it."""
    genzoo.publish(module, "own/model", to="model")
    return genzoo.load("model")  # type: ignore[return-value]


def photos(number: int = 12, size: tuple[int, int] = (11, 8)) -> None:
    """A folder of grey pictures of random pixels."""
    Path("photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (number, *reversed(size)), dtype=np.uint8)
    for name, picture in enumerate(pixels):
        Image.fromarray(picture).save(f"photos/{name}.png")


def scored(*arguments: str) -> tuple[list[str], dict[str, list[float]]]:
    """The names and the columns of what `genzoo score` wrote."""
    main(["score", "model", *arguments, "--out", "scores.csv", "--device", "cpu"])
    with open("scores.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return [row[0] for row in rows], {
        name: [float(row[place]) for row in rows] for place, name in enumerate(header) if place
    }


def close(found: list[float], expected: Tensor) -> bool:
    return torch.allclose(torch.tensor(found, dtype=torch.float64), expected.double(), rtol=1e-5, atol=1e-4)


# ---- score


@pytest.mark.parametrize("option, name", [("--out", "people.csv"), ("--sheet", "photos/1.png")])
def test_what_is_read_is_not_written_over(option: str, name: str, capsys: Captured) -> None:
    photos(12, (8, 8))
    Path("people.csv").write_text("a,b\n1,2\n")
    if option == "--out":
        published(MADE((2,), None, width=4))
        read = "people.csv"
    else:
        published(VAE((1, 8, 8), 256, latent_dim=2, network="mlp", width=4, depth=1))
        read = "photos"
    before = Path(name).read_bytes()
    line = refused(["score", "model", read, option, name], capsys)
    assert f"{option} {name}: that is a file to be read, and would be lost" in line
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize("option, name, kind", [("--out", "a.npy", ".csv"), ("--sheet", "a.csv", ".png")])
def test_a_file_is_called_after_what_it_holds(option: str, name: str, kind: str, capsys: Captured) -> None:
    photos(12, (8, 8))
    published(VAE((1, 8, 8), 256, latent_dim=2, network="mlp", width=4, depth=1))
    assert f"{option} {name}: this is written as {kind}" in refused(
        ["score", "model", "photos", option, name], capsys
    )


@pytest.mark.parametrize("levels", [256, 17, 2])
def test_a_folder_is_scored_as_the_datamodule_reads_it_most_odd_first(levels: int, capsys: Captured) -> None:
    photos(70)
    torch.manual_seed(0)
    model = published(VAE((1, 8, 8), levels, latent_dim=2, network="mlp", width=8, depth=1))
    names, columns = scored("photos", "--sheet", "odd.png", "--num_particles", "2")
    data = ImageFolderDataModule("photos", size=8, channels=1, in_memory=True)
    data.prepare_data()
    source = [data.load(split) for split in ("train", "test")]
    files = [name for part in source for name in part.files]  # type: ignore[attr-defined]
    x = torch.cat([data.scale(next(part.read([torch.arange(len(part))]))) for part in source])
    x = to_grid(x[[files.index(name) for name in names]], levels)
    assert list(columns) == ["anomaly_score (higher is odder)", "log_prob (nats, lower_bound, num_particles=2)"]
    odd, log_prob = columns.values()
    assert odd == sorted(odd, reverse=True) and close(odd, model.anomaly_score(x))  # type: ignore[attr-defined]
    assert close(log_prob, model.log_prob(x, num_particles=2, generator=PerDatum(x)))  # type: ignore[attr-defined]
    printed = capsys.readouterr()
    assert "70 scored" in printed.out and names[9] in printed.out and names[10] not in printed.out
    assert ("rounded to the model's" in printed.err) == (levels != 256)
    sheet = np.asarray(Image.open("odd.png"))[..., 0]
    tiles = [sheet[GAP : GAP + 64 : 8, GAP + place * 66 : GAP + place * 66 + 64 : 8] for place in range(8)]
    expected = (x[:8, 0] * 255).round().numpy()
    assert all(np.array_equal(tile, image) for tile, image in zip(tiles, expected, strict=True))
    last = sheet[-GAP - 64 : -GAP : 8, -GAP - 64 : -GAP : 8]  # the 32nd of the most usual
    assert np.array_equal(last, (x[-32, 0] * 255).round().numpy())


def test_what_cannot_be_read_is_counted_and_said_once(capsys: Captured) -> None:
    photos(5)
    published(VAE((1, 8, 8), 256, latent_dim=2, network="mlp", width=8, depth=1))
    for name in ("a", "b", "c", "d"):
        Path(f"photos/{name}.png").write_bytes(b"no picture")
    Path("photos/notes.txt").write_text("none either")
    names, _ = scored("photos")
    assert len(names) == 5
    left_out, missed = capsys.readouterr().err.splitlines()
    assert "Left out: 1 of other kinds (.txt)" in left_out
    assert "note: 4 of 9 have no score: the image photos/a.png cannot be used" in missed and missed.endswith("; …")
    assert "none of 1 could be scored: the image photos/b.png" in refused(["score", "model", "photos/b.png"], capsys)


def tables(values: np.ndarray) -> None:
    """The same rows in files of every kind; in the text one, three that are none."""
    import pyarrow
    from pyarrow import parquet

    np.save("rows.npy", values)
    columns = {"a": values[:, 0], "b": values[:, 1].astype(np.float32)}
    parquet.write_table(pyarrow.table(columns), "rows.parquet", row_group_size=7)
    lines = [f"{a!r};{b!r}" for a, b in values.tolist()]
    Path("rows.csv").write_text("\n".join(["a;b", lines[0], "nan;1.0", "1.0", "x;2.0", "", *lines[1:]]))


def test_rows_are_scored_from_tables_of_every_kind(capsys: Captured) -> None:
    torch.manual_seed(0)
    model = published(MADE((2,), None, width=8))
    values = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    tables(values.astype(np.float64))
    for file in ("rows.npy", "rows.parquet", "rows.csv"):
        names, columns = scored(file)
        assert list(columns) == ["anomaly_score (higher is odder)", "log_prob (nats, exact)"]
        places = [int(name.partition(":")[2]) for name in names]
        text = file == "rows.csv"  # of which an editor counts the lines, also those that are no rows
        rows = [place - (2 if place == 2 else 6) if text else place - 1 for place in places]
        assert sorted(rows) == list(range(20))
        if text:
            lines = Path(file).read_text().split("\n")
            written = [[float(cell) for cell in lines[place - 1].split(";")] for place in places]
            assert written == values[rows].tolist()
        expected = model.log_prob(torch.from_numpy(values[rows]))  # type: ignore[attr-defined]
        assert close(columns["log_prob (nats, exact)"], expected)
        said = capsys.readouterr().err
        if text:
            assert "note: 3 of 23 have no score: rows.csv:3: 1 of 1 data" in said.replace("MADE: ", "")
            assert "rows.csv:4: it has 1 cells, the first line the names of 2" in said
            assert "rows.csv:5: 'x' is no number" in said
        else:
            assert not said


def test_rows_without_names_and_with_tabs_are_rows() -> None:
    Path("rows.csv").write_text("1.5\t2\n3\t4\n")
    rows, count = table(Path("rows.csv"))
    told = [(line, row.tolist()) for line, row in rows]  # type: ignore[union-attr]
    assert count == 2 and told == [(1, [1.5, 2.0]), (2, [3.0, 4.0])]


def test_arrays_are_data_of_any_kind() -> None:
    torch.manual_seed(0)
    image = OwnData(VAE((1, 8, 8), 17, latent_dim=2, network="mlp", width=8, depth=1))
    raw = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    np.save("x.npy", raw)
    expected = to_grid(torch.from_numpy(raw / 255).float(), 17)
    found = list(image.read([Path("x.npy")], "reading"))
    assert torch.equal(torch.stack([d.x for d in found if d.x is not None]), expected)
    np.save("x.npy", np.stack([raw[0] / 255, raw[1] / 200, raw[2] / 255 * np.nan]))
    assert [bool(datum.why) for datum in image.read([Path("x.npy")], "reading")] == [False, True, True]
    sound = OwnData(WaveNet((1, 6), 256, channels=4, skip_channels=4, dilations=[1]))
    np.save("x.npy", np.array([[[0.0, 0.5, 0.0, -0.5, 0.0, 0.0]]]))
    (datum,) = sound.read([Path("x.npy")], "reading")
    assert datum.x is not None
    assert sound.module.observed(datum.x[None])[0, 0].tolist() == [True] * 4 + [False] * 2
    tokens = OwnData(GPT((6,), 4, width=8, depth=1, heads=1))
    np.save("x.npy", np.array([[0, 1, 2, 3, 3, 3], [0, 1, 2, 3, 3, 4]]))
    assert [bool(datum.why) for datum in tokens.read([Path("x.npy")], "reading")] == [False, True]


def test_bytes_are_what_they_are_to_the_datamodule() -> None:
    """Grey values of images; of points and of binary images the numbers themselves."""
    rows = np.array([[10, 200], [0, 1]], np.uint8)
    np.save("x.npy", rows)
    points = OwnData(MADE((2,), None, width=8))
    assert [d.x.tolist() for d in points.read([Path("x.npy")], "") if d.x is not None] == rows.tolist()
    binary = OwnData(VAE((1, 2, 2), 2, latent_dim=2, network="mlp", width=8, depth=1))
    for white in (1, 255):
        np.save("x.npy", np.array([[[[white, 0], [white, white]]]], np.uint8))
        (datum,) = binary.read([Path("x.npy")], "")
        assert datum.x is not None and datum.x.tolist() == [[[1, 0], [1, 1]]]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_tables_are_read_as_the_datamodule_reads_them(name: str) -> None:
    rest = [[float(row), 2.0 * row] for row in range(8)]
    Path(name).write_text('"a"\tb\n"1.5"\t"2"\n' + "".join(f"{a}\t{b}\n" for a, b in rest))
    told = [(line, row.tolist()) for line, row in table(Path(name))[0]]  # type: ignore[union-attr]
    assert told == list(enumerate([[1.5, 2.0], *rest], start=2))
    data = ArrayDataModule(path=name)
    assert sorted(data.data.x.tolist()) == sorted(row for _, row in told)
    Path(name).write_text("1.5\t\t3\n4\t5\t6\n")
    (line, why), second = table(Path(name))[0]
    assert line == 1 and "'' is no number" in str(why) and second[0] == 2


@pytest.mark.parametrize("year", ["2020", "c"])
def test_a_header_that_training_took_for_one_is_one(year: str) -> None:
    """Columns go by their names, whatever these are, and in whatever order they are in another file."""
    Path("train.csv").write_text(f"a,b,{year}\n" + "".join(f"{i},{i + 0.5},{-i}\n" for i in range(20)))
    names = ["a", "b", year]
    assert ArrayDataModule(path="train.csv", columns=names).data.x.shape == (20, 3)
    Path("later.csv").write_text(f"{year},b,a\n1,2,3\n2020,5,6\n")
    rows, _ = table(Path("later.csv"), columns=names)
    assert [(n, row.tolist()) for n, row in rows] == [(2, [3.0, 2.0, 1.0]), (3, [6.0, 5.0, 2020.0])]  # type: ignore
    Path("bare.csv").write_text("2020,2,3\n")
    rows, _ = table(Path("bare.csv"), columns=names)
    assert [row.tolist() for _, row in rows] == [[2020.0, 2.0, 3.0]]  # type: ignore[union-attr]


def test_a_header_of_years_beside_a_label_is_one() -> None:
    Path("train.csv").write_text("region,2020,2021\n" + "".join(f"{'ab'[i % 2]},{i},{i + 0.5}\n" for i in range(20)))
    data = ArrayDataModule(path="train.csv", label="region")
    assert list(data.column_names) == ["2020", "2021"] and data.num_classes == 2
    rows, _ = table(Path("train.csv"), columns=data.column_names)
    assert [row.tolist() for _, row in rows] == data.data.x.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "header"), [("x.tsv", "height, m\tweight, kg"), ("x.csv", '"height, m";"weight, kg"'), ("x.csv", "a,b")]
)
def test_what_stands_between_the_cells_is_not_what_stands_within_them(name: str, header: str) -> None:
    between = "\t" if name == "x.tsv" else ";" if ";" in header else ","
    rows = [[float(row), 2.0 * row] for row in range(9)]
    Path(name).write_text(header + "\n" + "".join(f"{a}{between}{b}\n" for a, b in rows))
    assert [row.tolist() for _, row in table(Path(name))[0]] == rows  # type: ignore[union-attr]
    assert sorted(ArrayDataModule(path=name).data.x.tolist()) == rows


def test_a_row_is_called_after_the_line_on_which_it_begins() -> None:
    """Also below a cell in quotes that goes on over several."""
    Path("x.csv").write_text('a,b,note\n1,2,"one\ntwo\nthree"\n3,4,\n')
    rows, _ = table(Path("x.csv"), columns=["b", "a"])
    assert [(line, row.tolist()) for line, row in rows] == [(2, [2.0, 1.0]), (5, [4.0, 3.0])]  # type: ignore


def test_a_table_is_what_training_took_for_one(capsys: Captured) -> None:
    """Columns that are true or false are numbers; and of a model that reads text, a .csv is a text."""
    truth = {"a": [0.5, 1.5, 2.5], "b": [True, False, None]}
    parquet.write_table(pyarrow.table(truth), "x.parquet")
    rows = [row.tolist() for _, row in table(Path("x.parquet"))[0]]  # type: ignore[union-attr]
    assert rows[:2] == [[0.5, 1.0], [1.5, 0.0]] and math.isnan(rows[2][1])
    published(GPT((8,), 4, vocabulary="\n,ab", width=8, depth=1, heads=1))
    Path("x.csv").write_text("a,b\nb,a\n")
    names, _ = scored("x.csv")
    assert names == ["x.csv"]


def test_a_table_that_is_damaged_further_down_keeps_the_rows_before(monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(pyarrow.table({"a": [1.0, 2.0]}), "x.parquet")
    whole = parquet.ParquetFile.iter_batches

    def broken(self: Any) -> Any:
        yield from whole(self)
        raise pyarrow.ArrowInvalid("a page is damaged")

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", broken)
    *rows, (number, why) = table(Path("x.parquet"))[0]
    assert len(rows) == 2 and number == 3 and "cannot be read from here on: a page is damaged" in str(why)


def test_a_table_without_rows_is_one_line(capsys: Captured) -> None:
    published(VAE((2,), None, latent_dim=1, width=4, depth=1))
    Path("x.csv").write_text("a,b\n")
    assert "the tables have no rows" in refused(["score", "model", "x.csv"], capsys)


def test_a_cell_that_nobody_asks_for_may_be_as_long_as_a_book() -> None:
    """As when a model was trained on the other columns."""
    note = '"' + "a line\n" * 30_000 + '"'
    Path("x.csv").write_text(f"a,note,b\n1,{note},2\n3,,4\n")
    first, last = table(Path("x.csv"), columns=["a", "b"])[0]
    assert [first[1].tolist(), last[1].tolist()] == [[1, 2], [3, 4]]  # type: ignore[union-attr]
    (bad, _) = table(Path("x.csv"))[0]
    assert "is no number" in str(bad[1]) and csv.field_size_limit() == 131_072


def test_a_quote_without_an_end_is_said() -> None:
    """It has all that follows in it, of which nothing else would be known."""
    Path("x.csv").write_text('a,b\n1,2\n"3,4\n5,6\n')
    first, bad = table(Path("x.csv"))[0]
    assert first[1].tolist() == [1, 2] and bad[0] == 3  # type: ignore[union-attr]
    assert "the quote that opens in line 3 is never closed, and has all that follows in it" in str(bad[1])


def test_what_a_model_gives_no_number_for_has_no_score(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Neither first nor last among the others, nor on the sheet."""
    photos(9)
    torch.manual_seed(0)
    published(VAE((1, 8, 8), 256, latent_dim=2, network="mlp", width=8, depth=1))
    scores = VAE.anomaly_score

    def third_is_nan(self: VAE, x: Tensor, **options: Any) -> Tensor:
        return scores(self, x, **options).index_fill(0, torch.tensor([2]), math.nan)

    monkeypatch.setattr(VAE, "anomaly_score", third_is_nan)
    names, columns = scored("photos", "--sheet", "odd.png")
    odd, log_prob = columns.values()
    assert "photos/2.png" not in names and len(names) == len(log_prob) == 8 and odd == sorted(odd, reverse=True)
    said = capsys.readouterr()
    assert "1 of 9 have no score: photos/2.png: what the model says of it is no number" in said.err
    assert "8 scored" in said.out
    ends = Ends(9)
    ends.add([1.0, math.nan, 3.0], torch.arange(3.0))
    assert [held.tolist() for held, _ in ends.held.values()] == [[3.0, 1.0], [1.0, 3.0]]


def test_sounds_are_read_as_the_datamodule_reads_them(capsys: Captured) -> None:
    torch.manual_seed(0)
    model = published(WaveNet((1, 50), 256, channels=4, skip_channels=4, dilations=[1, 2], sample_rate=4000))
    for length in range(40, 70, 3):
        write_wav(Path(f"sounds/{length}.wav"), torch.randn(2 * length).clamp(-4, 4) / 8, 8000)
    names, columns = scored("sounds")
    data = AudioDataModule("sounds", length=50, sample_rate=4000)
    x = {name: row for s in ("train", "test") for name, row in rows_of(data, s)}
    expected = model.log_prob(torch.stack([x[name] for name in names]))  # type: ignore[attr-defined]
    assert len(names) == 10 and close(columns["log_prob (nats, exact)"], expected)
    assert "6 sounds are longer than 50 samples" in capsys.readouterr().err


def rows_of(data: AudioDataModule, split: str) -> list[tuple[str, Tensor]]:
    source = data.load(split)
    x = data.scale(next(iter(source.read([torch.arange(len(source))]))))
    return list(zip(source.files, x, strict=True))  # type: ignore[attr-defined]


def test_texts_of_any_length_have_a_perplexity_and_bits_per_byte(capsys: Captured) -> None:
    torch.manual_seed(0)
    model = published(GPT((6,), 5, width=8, depth=1, heads=1, vocabulary=" abcé"))
    texts = {"long.txt": "abc cab é " * 5, "short.txt": "b", "middle.txt": "aé"}
    Path("texts").mkdir()
    for name, text in texts.items():
        Path("texts", name).write_text(text, "utf-8")
    Path("texts", "foreign.txt").write_text("xyz")
    Path("texts", "empty.txt").write_text("")
    names, columns = scored("texts")
    odd, log_prob, tokens, perplexity, bits = columns.values()
    assert list(columns)[1:] == ["log_prob (nats, exact)", "tokens", "perplexity (per token)", "bits_per_byte"]
    assert next(iter(columns)) == "anomaly_score (per token, higher is odder)"
    for place, name in enumerate(names):
        text = texts[Path(name).name]
        nats, score = -float(model.log_prob(text)), float(model.anomaly_score(text))  # type: ignore[attr-defined]
        assert tokens[place] == len(text) and -log_prob[place] == pytest.approx(nats, rel=1e-5)
        assert perplexity[place] == pytest.approx(math.exp(nats / len(text)), rel=1e-5)
        assert bits[place] == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-5)
        assert odd[place] == pytest.approx(score / len(text), rel=1e-5)
    assert odd == sorted(odd, reverse=True)
    printed = capsys.readouterr()
    total = -sum(log_prob)
    assert f"53 tokens, perplexity {math.exp(total / 53):.4g} per token" in printed.out
    assert f"{total / math.log(2) / 59:.4g} bits per byte" in printed.out
    assert "2 of 5 have no score" in printed.err and "characters are not in the vocabulary" in printed.err
    assert "a text without a token" in printed.err


def test_the_ends_of_a_ranking_are_those_of_the_whole() -> None:
    scores = torch.randint(30, (200,), generator=torch.Generator().manual_seed(0)).double()
    x, ends = torch.arange(200.0), Ends(9)
    for part in torch.arange(200).split(17):
        ends.add(scores[part].tolist(), x[part])
        assert all(len(held) <= 9 for held in ends.held[True])
    order = scores.argsort(descending=True, stable=True)
    assert torch.equal(ends.held[True][1], x[order][:9])
    assert torch.equal(ends.held[False][1], x[scores.argsort(stable=True)][:9])


def test_a_long_table_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("rows.csv").write_text("1,2\n" * 2000)
    own, held = OwnData(MADE((2,), None, width=8)), []
    data = own.read([Path("rows.csv")], "reading")
    monkeypatch.setattr(own, "row", lambda values: held.append(values) or torch.zeros(2))
    assert next(data).name == "rows.csv:1" and len(held) == 1


def test_what_cannot_be_scored_is_one_line(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(1)
    Path("empty").mkdir()
    published(Classifier((1, 8, 8), 256, 10, feature_dim=4, width=4))
    can = "It has no anomaly score. It has no likelihood."
    assert can in refused(["score", "model", "photos"], capsys)
    published(MADE((2,), None, width=8))
    assert "there is no file or folder nowhere" in refused(["score", "model", "nowhere"], capsys)
    assert "there is no table in empty" in refused(["score", "model", "empty"], capsys)
    assert "there is no table in photos. There are: 1 of other kinds (.png)" in refused(
        ["score", "model", "photos"], capsys
    )
    assert "the model's data are rows of 2 numbers" in refused(["score", "model", "photos/0.png"], capsys)
    assert "a sheet shows images" in refused(["score", "model", "photos", "--sheet", "a.png"], capsys)
    assert "there is no 'all'" in refused(["score", "model", "photos", "--only", "all"], capsys)
    Path("odd.csv").write_bytes(b"\xff\xfe\x00")
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    Path("odd.parquet").write_bytes(b"none")
    for name, why in (("odd.csv", "decode"), ("objects.npy", "Python objects"), ("odd.parquet", "Parquet")):
        said = refused(["score", "model", name], capsys)
        assert f"none of 1 could be scored: {name} cannot be used" in said and why in said
    monkeypatch.setattr("genzoo.own_data.find_spec", lambda name: None)
    assert "pip install 'genzoo[parquet]'" in refused(["score", "model", "odd.parquet"], capsys)


# ---- complete


def strip(path: str, number: int, size: int = 8) -> list[np.ndarray]:
    """The tiles of a picture in one row, as they were before they were enlarged."""
    zoom = 64 // size
    pixels = np.asarray(Image.open(path))[GAP : GAP + 64 : zoom, :, 0]
    step = 64 + GAP
    return [pixels[:, GAP + n * step : GAP + n * step + 64 : zoom] for n in range(number)]


@pytest.fixture
def pixelcnn() -> ZooModule:
    torch.manual_seed(0)
    sizes = {"channels": 8, "depth": 2}
    return published(PixelCNN((1, 8, 8), 17, num_classes=3, conditional=True, **sizes))


@pytest.mark.parametrize(
    ("how", "rows", "columns"),
    [
        ("upper", slice(0, 4), slice(None)),
        ("lower", slice(4, 8), slice(None)),
        ("left", slice(None), slice(0, 4)),
        ("right", slice(None), slice(4, 8)),
        ("box:1,2,3,4", slice(2, 6), slice(1, 4)),
    ],
)
def test_a_picture_is_completed_beside_what_is_known(
    how: str, rows: slice, columns: slice, pixelcnn: ZooModule
) -> None:
    photos(1)
    main(["complete", "model", "photos/0.png", "--known", how, "--device", "cpu", "--set", "labels=[2]"])
    known = np.zeros((8, 8), bool)
    known[rows, columns] = True
    x = OwnData(pixelcnn).fitted(OwnData(pixelcnn).raw(Path("photos/0.png")))
    before, *filled = strip("completed.png", 4)
    image = (x[0] * 255).round().numpy()
    assert np.array_equal(before, np.where(known, image, 128))
    assert all(np.array_equal(tile[known], image[known]) for tile in filled)
    expected = pixelcnn.complete(  # type: ignore[attr-defined]
        x[None],
        torch.from_numpy(known),
        num_samples=3,
        labels=torch.tensor([2]),
        generator=torch.Generator().manual_seed(0),
    )
    assert all(np.array_equal(a, (b[0, 0] * 255).round().numpy()) for a, b in zip(filled, expected, strict=True))


def test_a_mask_is_of_the_picture_s_size_or_of_the_model_s(pixelcnn: ZooModule, capsys: Captured) -> None:
    Path("photos").mkdir()
    Image.new("L", (24, 16), 255).save("photos/0.png")  # of which the middle 16 × 16 are the model's 8 × 8
    mask = Image.new("L", (24, 16), 0)
    mask.paste(255, (0, 0, 24, 8))
    command = ["complete", "model", "photos/0.png", "--device", "cpu", "--num_samples", "1", "--mask"]
    mask.save("mask.png")
    main([*command, "mask.png"])
    (before, _) = strip("completed.png", 2)
    assert (before[:3] == 255).all() and (before[4:] == 128).all()
    small = Image.new("L", (8, 8), 0)
    small.putpixel((5, 6), 255)
    small.save("small.png")
    main([*command, "small.png"])
    (before, _) = strip("completed.png", 2)
    assert before[6, 5] == 255 and (before == 255).sum() == 1
    Image.new("L", (9, 8), 0).save("odd.png")
    said = last_line([*command, "odd.png"], capsys)
    assert "odd.png has 9 × 8 pixels, but photos/0.png has 24 × 16" in said


def last_line(argv: list[str], capsys: Captured) -> str:
    """The error of a command, after its notes."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    *notes, error = capsys.readouterr().err.strip().splitlines()
    assert all(line.startswith("genzoo: note: ") for line in notes) and error.startswith("genzoo: error: ")
    return error


def test_what_cannot_be_completed_is_one_line(pixelcnn: ZooModule, capsys: Captured) -> None:
    photos(1)
    Image.new("L", (8, 8), 255).save("white.png")
    Image.new("L", (8, 8), 0).save("black.png")
    command = ["complete", "model", "photos/0.png", "--device", "cpu"]
    for options, message in (
        ([], "say what is known of the picture"),
        (["--known", "upper", "--mask", "white.png"], "say what is known of the picture"),
        (["--known", "middle"], "--known middle: give upper, lower, left, right or box:x,y,w,h"),
        (["--known", "box:0,0,9,1"], "no such box in the model's 8 × 8 pixels"),
        (["--known", "box:0,0,0,1"], "no such box"),
        (["--mask", "white.png"], "white all over"),
        (["--mask", "black.png"], "white nowhere"),
        (["--mask", "nowhere.png"], "there is no file or folder nowhere.png"),
        (["--known", "upper", "--set", "labels=[7]"], "labels lie in [0, 3)"),
        (["--known", "upper", "--set", "known=1"], "`complete` takes labels"),
        (["--known", "upper", "--out", "x.wav"], "written as .png"),
    ):
        assert message in last_line([*command, *options], capsys)
    assert "there is no file or folder nowhere" in refused(["complete", "model", "nowhere"], capsys)
    assert "photos is a folder: name a single file" in refused(["complete", "model", "photos"], capsys)
    Path("photos/1.png").write_bytes(b"no picture")
    assert "photos/1.png cannot be used" in last_line(
        ["complete", "model", "photos/1.png", "--known", "left"], capsys
    )
    published(MADE((2,), None, width=8))
    assert "completes rows of numbers: give a .csv or .tsv or .npy or .parquet" in refused(command, capsys)
    published(Classifier((1, 8, 8), 256, 10, feature_dim=4, width=4))
    assert "It cannot fill in what is missing." in refused(command, capsys)


def test_the_rest_of_a_sound_follows_its_beginning(capsys: Captured) -> None:
    torch.manual_seed(0)
    model = published(WaveNet((1, 400), 256, channels=4, skip_channels=4, dilations=[1, 2], sample_rate=4000))
    write_wav(Path("x.wav"), torch.randn(300).clamp(-4, 4) / 8, 4000)
    command = ["complete", "model", "x.wav", "--num_samples", "2", "--device", "cpu"]
    main([*command, "--known", "0.05s"])
    with wave.open("completed.wav") as file:
        heard = np.frombuffer(file.readframes(9999), "<i2")
    begin, *filled = (heard[n * 1400 : n * 1400 + 400] for n in range(3))  # a quarter of a second between
    own = OwnData(model)
    x = own.fitted(own.raw(Path("x.wav")))
    expected = (x[0, :200] * 2**15).round().numpy()
    assert np.array_equal(begin[:200], expected) and not begin[200:].any()
    assert all(np.array_equal(sound[:200], expected) and sound[200:].any() for sound in filled)
    for known, message in (("2s", "0.075 s"), ("0", "more than nothing"), ("upper", "in seconds: 0.5s")):
        assert message in refused([*command, "--known", known], capsys)
    assert "that is for pictures" in refused([*command, "--mask", "m.png"], capsys)


def test_a_text_goes_on_from_its_beginning(capsys: Captured) -> None:
    torch.manual_seed(0)
    model = published(GPT((6,), 4, width=8, depth=1, heads=1, vocabulary=" abc"))
    Path("x.txt").write_text("abc cab abc cab")
    command = ["complete", "model", "x.txt", "--num_samples", "2", "--device", "cpu"]
    main([*command, "--known", "4", "--set", "length=9"])
    begin, *filled = Path("completed.txt").read_text().strip("\n").split(RULE)
    assert begin == "abc " and all(text.startswith("abc ") and len(text) == 9 for text in filled)
    drawn = model.sample(2, prompt="abc ", length=9, generator=torch.Generator().manual_seed(0))  # type: ignore
    assert filled == model.text(drawn)  # type: ignore[attr-defined]
    main(command)  # longer than what is in view
    assert all(text.startswith("abc cab abc cab") for text in Path("completed.txt").read_text().split(RULE))
    assert "how many characters" in refused([*command, "--known", "upper"], capsys)
    Path("x.txt").write_text("")
    assert "is empty" in refused(command, capsys)
    Path("x.txt").write_text("xyz")
    assert "not in the vocabulary" in refused(command, capsys)
    published(GPT((6,), 4, width=8, depth=1, heads=1))
    assert "the model has no vocabulary" in refused(command, capsys)


def test_a_text_goes_on_as_of_a_class(capsys: Captured) -> None:
    torch.manual_seed(0)
    told = GPT((6,), 4, width=8, depth=1, heads=1, vocabulary=" abc", num_classes=3, conditional=True)
    told.name_classes(("x", "y", "z"))
    model = published(told)
    Path("x.txt").write_text("abc")
    for labels in ("2", "[2]", "z", "[z, z]"):
        main(["complete", "model", "x.txt", "--num_samples", "2", "--device", "cpu", "--set", f"labels={labels}"])
        _, *filled = Path("completed.txt").read_text().strip("\n").split(RULE)
        generator = torch.Generator().manual_seed(0)
        drawn = model.sample(2, prompt="abc", labels=torch.tensor([2, 2]), generator=generator)  # type: ignore
        assert filled == [text.strip("\n") for text in model.text(drawn)]  # type: ignore[attr-defined]


def test_the_gaps_of_a_text_are_filled_in(capsys: Captured) -> None:
    torch.manual_seed(0)
    model = published(MaskedDiffusion((12,), 4, width=8, depth=1, heads=1, vocabulary=" abc"))
    Path("x.txt").write_text("abc cab ca")
    command = ["complete", "model", "x.txt", "--num_samples", "2", "--device", "cpu"]

    def answered(*known: str) -> list[str]:
        main([*command, *known])
        return Path("completed.txt").read_text().strip("\n").split(RULE)

    x = torch.cat([model.tokens("abc cab ca"), torch.zeros(2, dtype=torch.long)])  # type: ignore[attr-defined]
    for options, known, shown in (
        ((), slice(0, 10), "abc cab ca…"),
        (("--known", "4"), slice(0, 4), "abc …"),
        (("--known", ":3,5:7"), [0, 1, 2, 5, 6], "abc…ab…"),
        (("--known", "8:"), slice(8, 10), "…ca…"),
    ):
        begin, *filled = answered(*options)
        mask = torch.zeros(12, dtype=torch.bool)
        mask[known] = True
        generator = torch.Generator().manual_seed(0)
        drawn = model.complete(x[None], mask, num_samples=2, generator=generator)  # type: ignore[attr-defined]
        assert begin == shown and filled == model.text(drawn[:, 0])  # type: ignore[attr-defined]
    for known in ("upper", "3,5", "3,5:7"):
        assert "which of its tokens" in refused([*command, "--known", known], capsys)
    assert "nothing is known" in refused([*command, "--known", "11:"], capsys)
    Path("x.txt").write_text("abc " * 3)
    assert "none is left to fill in" in refused(command, capsys)
    Path("x.txt").write_text("abc " * 4)
    assert "has 16 tokens: give 1 to 12" in refused(command, capsys)


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".parquet"])
def test_the_gaps_of_a_table_are_filled_in(suffix: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each row by itself, whichever of its numbers are missing; what was known stays."""
    monkeypatch.setattr("genzoo.commands.complete.AT_ONCE", 2)
    torch.manual_seed(0)
    model = FlowMatching((3,), None, width=8)
    model.standardise(torch.tensor([170.0, 40_000.0, 0.5]), torch.tensor([10.0, 9000.0, 0.1]))
    columns = {"columns": ["height", "income", "share"]}
    block = {"class_path": "genzoo.datamodules.ArrayDataModule", "init_args": columns}
    genzoo.publish(model, "own/model", to="model", data=block)
    x = np.array([[170.5, 1e4, 0.25], [180, np.nan, 0.5], [np.nan, np.nan, 0.125]], np.float32)
    if suffix == ".npy":
        np.save("people.npy", x)
    elif suffix == ".csv":
        Path("people.csv").write_text("share,who,height,income\n0.01,anna,170.5,10000\n0.5,ben,180, \n0.125,,,nan\n")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        values = [[None if number != number else float(number) for number in column] for column in x.T]
        parquet.write_table(pyarrow.table(dict(zip(columns["columns"], values, strict=True))), "people.parquet")
    command = ["complete", "model", f"people{suffix}", "--num_samples", "4", "--device", "cpu"]
    main(command)
    with open("completed.csv", newline="") as file:
        head, first, *_ = csv.reader(file)
    assert head == columns["columns"] and first == ["170.5", "10000", "0.01" if suffix == ".csv" else "0.25"]
    found = np.loadtxt("completed.csv", delimiter=",", skiprows=1).reshape(3, 4, 3)
    main([*command, "--out", "completed.npy"])
    assert np.array_equal(np.load("completed.npy"), found.swapaxes(0, 1))
    if suffix == ".csv":
        assert (found[0, :, 2] == 0.01).all()  # to its last digit, which float32 has not
        x[0, 2] = 0.01
        found = found.astype(np.float32)
    known = ~np.isnan(x)
    assert np.array_equal(found.swapaxes(0, 1)[:, known], np.broadcast_to(x[known], (4, known.sum())))
    assert np.isfinite(found).all() and found[1, :, 1].std() > 0 < found[2, :, 0].std()
    generator = torch.Generator().manual_seed(0)
    held = torch.from_numpy(known)
    expected = genzoo.load(
        "model"
    ).complete(  # type: ignore[attr-defined]
        torch.from_numpy(x[:2]), held[:2], num_samples=4, generator=generator
    )
    np.testing.assert_allclose(found[:2].swapaxes(0, 1), expected, rtol=1e-6)
    said = capsys.readouterr().err
    assert ("the model's data are the columns height, income, share. Left out: who" in said) == (suffix == ".csv")
    assert "leave empty what is unknown" in refused([*command, "--known", "2"], capsys)
    assert "that is for pictures" in refused([*command, "--mask", "m.png"], capsys)
    assert "written as .csv or .npy" in refused([*command, "--out", "x.png"], capsys)


def test_rows_without_gaps_or_sense_are_refused(capsys: Captured) -> None:
    published(FlowMatching((2,), None, width=8))
    command = ["complete", "model", "rows.csv", "--device", "cpu"]
    for text, message in (
        ("a,b\n1,2\n", "rows.csv has no gaps: nothing is left to fill in"),
        ("a,b\n1,\n1,two\n", "rows.csv:3: 'two' is no number"),
        ("a,b\n1,,3\n", "rows.csv:2: it has 3 cells, the first line the names of 2"),
        ("1,,3\n", "rows.csv:1: it has the shape (3,)"),
        ("a,b\n1,NA\n", "rows.csv:2: 'NA' is no number: leave empty what is unknown"),
        ("a,b\n1,inf\n", "rows.csv:2: it holds an infinite number: leave that empty, if it is unknown"),
        ("a,b\n", "rows.csv has no rows"),
    ):
        Path("rows.csv").write_text(text)
        assert message in refused(command, capsys)
    Path("rows.csv").write_text(",\n1,\n")  # a row like any other, not the names of the columns
    main([*command, "--num_samples", "1"])
    assert np.loadtxt("completed.csv", delimiter=",", skiprows=1).shape == (2, 2)
    assert "that is a file to be read" in refused([*command, "--out", "rows.csv"], capsys)
    columns = {"class_path": "genzoo.datamodules.ArrayDataModule", "init_args": {"columns": ["a", "b"]}}
    genzoo.publish(FlowMatching((2,), None, width=8), "own/model", to="model", data=columns)
    Path("rows.csv").write_text("a,c\n1,\n")
    assert "its columns are a, c: the model's b is not among them" in refused(command, capsys)


def test_each_row_is_completed_as_of_its_class(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """However many are completed at a time; and nothing is drawn of a class that was not asked for."""
    monkeypatch.setattr("genzoo.commands.complete.AT_ONCE", 2)
    monkeypatch.setattr("genzoo.commands.complete.SHOWN", 3)
    asked: list[list[int]] = []

    completed = FlowMatching.complete

    def told(model: Any, x: Tensor, known: Tensor, *, labels: Tensor | None = None, **options: Any) -> Tensor:
        asked.append([] if labels is None else labels.tolist())
        return completed(model, x, known, labels=labels, **options)

    monkeypatch.setattr(FlowMatching, "complete", told)
    published(FlowMatching((2, 4), None, patch=1, width=8, depth=1, heads=1, num_classes=3, conditional=True))
    np.save("mine.npy", np.zeros((5, 2, 4)))
    command = ["complete", "model", "mine.npy", "--known", "2", "--num_samples", "1", "--device", "cpu"]
    for labels, out, expected in (
        ("[0, 1, 2, 1, 0]", "completed.npy", [[0, 1], [2, 1], [0]]),
        ("1", "completed.npy", [[1, 1], [1, 1], [1]]),
        ("[0, 1, 2, 1, 0]", "completed.png", [[0, 1], [2]]),
    ):
        asked.clear()
        main([*command, "--set", f"labels={labels}", "--out", out])
        assert asked == expected
    capsys.readouterr()
    assert "2 classes of 5 data" in refused([*command, "--set", "labels=[0, 1]", "--out", "completed.npy"], capsys)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_series_is_forecast_from_its_beginning(channels: int, capsys: Captured) -> None:
    torch.manual_seed(0)
    model = published(FlowMatching((channels, 12), None, patch=2, width=16, depth=1))
    x = torch.randn(20, channels, 12).numpy()
    x[0, 0, 2] = np.nan
    np.save("mine.npy", x)
    command = ["complete", "model", "mine.npy", "--device", "cpu", "--num_samples", "2"]
    main([*command, "--known", "7", "--out", "completed.npy"])
    found = np.load("completed.npy")
    known = ~np.isnan(x) & (np.arange(12) < 7)
    assert found.shape == (2, 20, channels, 12) and np.isfinite(found).all()
    assert np.array_equal(found[:, known], np.broadcast_to(x[known], (2, known.sum())))
    main([*command, "--known", "7"])
    assert "the first 16 of 20 series are completed and shown" in capsys.readouterr().err
    width, height = Image.open("completed.png").size
    assert (width, height) == (3 * (CURVE[0] + GAP) + GAP, 16 * (CURVE[1] + GAP) + GAP)
    with torch.no_grad():
        drawn = model.sample(4, generator=torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    assert isinstance(render(drawn, 2, model), Picture)
    main(["sample", "model", "--num_samples", "3", "--out", "drawn.npy", "--device", "cpu"])
    assert np.load("drawn.npy").shape == (3, channels, 12)
    main(["sample", "model", "--num_samples", "3", "--device", "cpu"])
    assert Path("samples.png").is_file()
    for known in ("0", "half", "12", "9" * 30):
        assert "how many of the 12 times are known, fewer than all" in refused([*command, "--known", known], capsys)
    np.save("begun.npy", x[1:, :, :7])  # of which nobody knows the rest
    main(["complete", "model", "begun.npy", "--device", "cpu", "--num_samples", "2", "--out", "ahead.npy"])
    assert np.array_equal(np.load("ahead.npy")[0, :, :, :7], x[1:, :, :7])
    np.save("begun.npy", x[1, :, :7])
    wrong = refused(["complete", "model", "begun.npy", "--device", "cpu"], capsys)
    assert f"so give an array (N, {channels}, 12) or shorter" in wrong
    np.save("mine.npy", x[1:])
    assert "or say how many of the 12 times are known (--known)" in refused(command, capsys)
    np.save("mine.npy", 1e37 * x)
    command += ["--known", "7", "--out", "completed.npy"]
    assert "makes of these data no finite numbers" in refused(command, capsys)
