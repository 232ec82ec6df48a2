"""A user's own images: every form of folder, kept in memory or read by workers."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from genzoo.datamodules import ImageFolderDataModule
from genzoo.datamodules import folder as module
from genzoo.datamodules.folder import image_suffixes, natural, scan, suitable_batch, upright_size


def decode(path: Path, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(module.decode(path, shape))


def picture(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with 20 images each, of several formats and sizes."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(20):
            suffix = ("png", "jpg", "bmp")[i % 3]
            picture(100 * label + i, (12 + i, 30 - i)).save(tmp_path / name / f"{i}.{suffix}")
    return tmp_path


def folder(root: Path, **kwargs: Any) -> ImageFolderDataModule:
    return ImageFolderDataModule(**{"root": str(root), "size": 8, "batch_size": 8, **kwargs})


def batches(data: ImageFolderDataModule, epochs: int = 1) -> list[tuple[Tensor, Tensor]]:
    train = data.train_dataloader()
    return [*(b for _ in range(epochs) for b in train), *data.val_dataloader(), *data.test_dataloader()]


def test_the_contract_is_known_from_the_names_of_the_files(root: Path) -> None:
    data = folder(root, channels=1)
    assert (data.shape, data.levels, data.num_classes) == ((1, 8, 8), 256, 2)
    assert data.class_names == ["cat", "dog"]
    assert data.hparams["val_fraction"] == 0.1 and "val_size" not in data.hparams


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_kept_and_read_images_are_the_same_bit_for_bit(root: Path, channels: int, num_workers: int) -> None:
    kept = folder(root, channels=channels, in_memory=True)
    read = folder(root, channels=channels, in_memory=False, num_workers=num_workers)
    read.prepare_data()
    for (x, y), (x2, y2) in zip(batches(kept, 2), batches(read, 2), strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)
        assert x.dtype == torch.float32 and x.shape[1:] == (channels, 8, 8)
        assert torch.equal((x * 255).round() / 255, x)


def test_what_does_not_fit_is_read(root: Path) -> None:
    assert folder(root, memory_limit=40 * 3 * 64).in_memory
    assert not folder(root, memory_limit=40 * 3 * 64 - 1).in_memory


def test_every_image_is_in_one_split_with_its_label(root: Path) -> None:
    data = folder(root, batch_size=1, val_fraction=0.25, test_fraction=0.2)
    found = sorted((x.numpy().tobytes(), y.item()) for x, y in batches(data))
    expected = sorted(
        ((decode(file, data.shape) / 255).numpy().tobytes(), int(file.parent.name == "dog"))
        for file in (found.path for found in scan(root)[0]["train"])
    )
    assert found == expected
    assert [len(data.sources[split]) for split in ("train", "val", "test")] == [24, 8, 8]


def test_natural_order(tmp_path: Path) -> None:
    for name in ("10.png", "9.png", "a2.png", "a10.png", ".hidden.png", "note.txt"):
        picture(0).save(tmp_path / name, format="png")
    with pytest.warns(UserWarning, match="4 files are read. Left out"):
        found = scan(tmp_path)[0]["train"]
    assert [file.path.name for file in found] == ["9.png", "10.png", "a2.png", "a10.png"]


# ---- what is read, and what is left out


def test_what_pillow_reads_is_read(tmp_path: Path) -> None:
    """Every kind that this Pillow can write as well: 8 images of each, none of which is missing."""
    kinds = {"GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", "BMP", "TGA", "PCX", "SGI", "DIB", "ICO"}
    written = 0
    for suffix in sorted(image_suffixes()):
        if Image.registered_extensions()[suffix] in kinds & Image.SAVE.keys():
            picture(written, (16, 16)).save(tmp_path / f"{suffix[1:]}{suffix.upper()}")
            written += 1
    assert written > 25
    data = folder(tmp_path, batch_size=1)
    data.setup()
    assert sum(len(data.sources[split]) for split in ("train", "val", "test")) == written


def test_linked_folders_are_read_as_torchvision_reads_them(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from torchvision.datasets import ImageFolder

    linked = tmp_path_factory.mktemp("linked")
    (linked / "cat").symlink_to(root / "cat")
    (linked / "dog").mkdir()
    for file in (root / "dog").iterdir():
        (linked / "dog" / file.name).symlink_to(file)
    data = folder(linked)
    found = {(file.path.as_posix(), file.label) for files in data.files.values() for file in files}
    assert found == set(ImageFolder(str(linked)).samples) and len(found) == 40


def test_what_is_left_out_is_counted_and_said_once(root: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "cat/._0.png", "__MACOSX/cat/._0.png", ".cache/x.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"litter")
    for name in ("list.csv", "cat/3.heic", "cat/4.heic", "dog/README"):
        (root / name).write_bytes(b"of another kind")
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "dog" / "again.png").symlink_to(root / "dog" / "0.png")
    (root / "kitten").symlink_to(root / "cat")
    with pytest.warns(UserWarning) as caught:
        data = folder(root)
    (said,) = [str(warning.message) for warning in caught]
    assert said.startswith(f"{root}: 40 files are read. Left out: ") and set(
        said.split("Left out: ")[1].split("; ")
    ) == {
        "5 hidden (.DS_Store, ._0.png, .cache, …)",
        "4 of other kinds (.csv, .heic, without a suffix)",
        "1 no files, or links that lead nowhere (gone.png)",
        "2 found again by another link (again.png, kitten).",
    }
    assert data.class_names == ["cat", "dog"] and sum(map(len, data.files.values())) == 40


def test_what_a_run_has_left_is_nobody_s_data(root: Path) -> None:
    """Where one trains in the folder of the data; a folder of pictures with a file of that name is none."""
    before = ImageFolderDataModule(str(root), 4).files
    for run, file in (("runs/mine/1", "checkpoints/last.ckpt"), ("logs/version_0", "hparams.yaml")):
        for part in ("samples", "entry", "checkpoints"):
            (root / run / part).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(root / run / part / "samples-00000004.png")
        (root / run / file).write_text("")
    (root / "cat" / "drums" / "samples").mkdir(parents=True)
    (root / "cat" / "drums" / "config.yaml").write_text("bpm: 120")
    picture(99).save(root / "cat" / "drums" / "samples" / "kick-1.png")
    with pytest.warns(UserWarning, match=r"2 folders of runs \(1, version_0\)"):
        after = ImageFolderDataModule(str(root), 4)
        after.prepare_data()
    assert sum(map(len, after.files.values())) == sum(map(len, before.values())) + 1  # the drums
    assert after.class_names == ["cat", "dog"]


@pytest.mark.parametrize("name", ["lost+found", "System Volume Information", "#recycle"])
def test_a_folder_of_pictures_may_be_a_disk(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What systems keep at the root of one, nobody may look into."""
    before = len(folder(root).files["train"])
    (root / name).mkdir()
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    data = folder(root)
    assert len(data.files["train"]) == before and data.class_names == ["cat", "dog"]


def test_links_that_make_a_circle_end(root: Path) -> None:
    for name in ("one", "two", "three"):  # 3^40 ways to walk, as deep as a system lets one
        (root / "cat" / name).symlink_to(root)
    (root / "dog" / "self").symlink_to(root / "dog" / "self")
    with pytest.warns(UserWarning, match=r"3 found again by another link \(one, three, two\)"):
        assert sum(map(len, folder(root).files.values())) == 40


def test_files_beside_the_splits_are_counted(root: Path) -> None:
    (root / "train").mkdir()
    for name in ("cat", "dog"):
        (root / name).rename(root / "train" / name)
    picture(0).save(root / "loose.png")
    with pytest.warns(UserWarning, match=r"40 files are read. Left out: 1 beside the folder train \(loose.png\)"):
        folder(root)


def test_an_image_in_two_splits_by_a_link_is_refused(root: Path) -> None:
    (root / "train").mkdir()
    for name in ("cat", "dog"):
        (root / name).rename(root / "train" / name)
    (root / "test").symlink_to(root / "train")
    with pytest.raises(ValueError, match=r"is the same file as one of .*train: an image is in one split alone"):
        folder(root)


def test_a_folder_that_may_not_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(folder: Path, real: Any = os.scandir) -> Any:
        if Path(folder).name == "cat":
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="cat"):
        folder(root)


@pytest.mark.parametrize("in_memory", [True, False])
def test_frames_that_are_not_read_are_counted(root: Path, in_memory: bool) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (10, 200, 250)]
    for name in ("a.gif", "b.webp", "c.tiff", "d.png"):
        frames[0].save(root / "cat" / name, save_all=True, append_images=frames[1:], lossless=True)
        assert (decode(root / "cat" / name, (1, 8, 8)) == 10).all()
    frames[0].save(root / "cat" / "still.gif")
    data = folder(root, in_memory=in_memory)
    with pytest.warns(UserWarning, match=r"4 of 45 images have several frames or pages, of which the first is read"):
        data.prepare_data()


def test_every_mode_of_an_image_becomes_colour_or_grey(tmp_path: Path) -> None:
    """The same dark red, as each mode stores it; what has no certain white is refused."""
    red = Image.new("RGB", (8, 8), (180, 20, 20))
    modes = {
        "palette.png": red.quantize(4),
        "cmyk.tiff": red.convert("CMYK"),
        "ycc.tiff": red.convert("YCbCr"),
        "alpha.png": red.convert("RGBA"),
    }
    for name, image in modes.items():
        image.save(tmp_path / name, compression="tiff_lzw")  # Pillow before 13 cannot read its own without
        found = decode(tmp_path / name, (3, 8, 8)).float()
        assert (found - torch.tensor([180.0, 20, 20]).view(3, 1, 1)).abs().max() <= 2, name
        assert (decode(tmp_path / name, (1, 8, 8)) - (0.299 * 180 + 0.587 * 20 + 0.114 * 20)).abs().max() < 3, name
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    assert (decode(tmp_path / "bits.png", (3, 8, 8)) == 255).all()
    for name, mode in (("deep.png", "I;16"), ("float.tiff", "F"), ("long.tiff", "I")):
        Image.new(mode, (8, 8)).save(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} cannot be used: it has more than 8 bits a channel"):
            decode(tmp_path / name, (1, 8, 8))


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for i in range(10):
        picture(i).save(tmp_path / f"{i}.png")
    data = folder(tmp_path, batch_size=4)
    assert data.num_classes is None
    assert next(iter(data.train_dataloader())).shape == (4, 3, 8, 8)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="no labels"):
        folder(tmp_path, classes=[0])


@pytest.mark.parametrize("in_memory", [True, False])
def test_folders_of_splits(tmp_path: Path, in_memory: bool) -> None:
    expected = {}
    for seed, (split, num) in enumerate((("train", 12), ("val", 5), ("test", 3))):
        for i in range(num):
            file = tmp_path / split / f"class{i % 3}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(100 * seed + i).save(file)
        files = sorted((tmp_path / split).rglob("*.png"))
        expected[split] = {(decode(file, (3, 8, 8)) / 255).numpy().tobytes() for file in files}
    data = folder(tmp_path, batch_size=1, in_memory=in_memory, num_workers=0, limit=10)
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    found = [{x.numpy().tobytes() for x, _ in loader} for loader in loaders]
    assert found[1:] == [expected["val"], expected["test"]]
    assert len(found[0]) == 10 and found[0] < expected["train"]


def test_decoding(tmp_path: Path) -> None:
    # The middle square of a wide picture of three colours is the middle one.
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = (10, 200, 30)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", (3, 8, 8)) == torch.tensor([10, 200, 30]).view(3, 1, 1)).all()
    # Of the right size already: not a bit is changed.
    picture(1, (8, 8)).save(tmp_path / "exact.png")
    exact = decode(tmp_path / "exact.png", (3, 8, 8))
    assert np.array_equal(exact.permute(1, 2, 0).numpy(), np.asarray(picture(1, (8, 8))))
    # Fine stripes become grey when they are made small, not black or white.
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    assert (decode(tmp_path / "stripes.png", (1, 8, 8)).float() - 127.5).abs().max() < 10
    # Transparent is white; a picture that says it lies on its side is turned.
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (decode(tmp_path / "clear.png", (3, 8, 8)) == 255).all()
    side = Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 8, 1).repeat(4, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    side.save(tmp_path / "side.png", exif=exif)
    turned = decode(tmp_path / "side.png", (1, 8, 8))[0]
    assert (turned[:, :4] == 255).all() and (turned[:, 4:] == 0).all()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("damage", ["cut.png", "cut.jpg", "text.png", "empty.jpg", "deep.png", "cut.bmp"])
def test_a_damaged_image_is_named_before_training(root: Path, damage: str, in_memory: bool) -> None:
    file = root / "cat" / damage
    kind, suffix = damage.split(".")
    if kind == "cut":
        picture(0, (40, 40)).save(file)
        file.write_bytes(file.read_bytes()[:-600])
    elif kind == "deep":
        Image.fromarray(np.full((9, 9), 60_000, np.uint16)).save(file)
    else:
        file.write_text("no image" if kind == "text" else "")
    data = folder(root, in_memory=in_memory)
    with pytest.raises(ValueError, match=f"the image .*{kind}.{suffix} cannot be used: .*Repair or remove it"):
        data.prepare_data()
        data.setup("fit")
        data.setup("test")


def test_no_process_is_started_where_none_can_be_forked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one would run the user's script again, on macOS and on Windows."""
    data = folder(root, in_memory=False)
    data.prepare_data()
    data.setup("fit")
    expected = [x for x, _ in data.val_dataloader()]
    monkeypatch.setattr(module, "can_fork", lambda: False)
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", lambda self: pytest.fail("was started"))
    assert all(map(torch.equal, [x for x, _ in data.val_dataloader()], expected))


def test_an_image_that_is_damaged_later_is_named_by_its_worker(root: Path) -> None:
    data = folder(root, in_memory=False, limit=8)
    data.prepare_data()
    data.setup("fit")
    for file in data.sources["train"].paths:  # type: ignore[attr-defined]
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"^the image .* cannot be used: .*\. Repair or remove it$") as error:
        list(data.train_dataloader())
    assert "\n" not in str(error.value)  # nothing of the worker's traceback


def test_folders_of_another_form(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        folder(root / "nowhere")
    (root / "empty").mkdir()
    (root / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(FileNotFoundError, match=r"there is no image in .*empty, .*1 of other kinds \(\.txt\)"):
        folder(root / "empty")
    picture(0).save(root / "loose.png")
    with pytest.raises(ValueError, match=r"must lie directly in it, or in class folders.*\(none\), cat, dog"):
        folder(root)
    (root / "loose.png").unlink()
    (root / "train").mkdir()
    with pytest.raises(ValueError, match="so its others must be val and test, but there is also cat, dog, empty"):
        folder(root)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size is 0, but must be a whole number, at least 1, or auto"),
        ({"size": "large"}, "size is 'large', but must be"),
        ({"channels": 2}, "channels is 2, but must be 1 or 3, or auto"),
        ({"batch_size": "large"}, "batch_size is 'large', but must be"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"classes": [2]}, "has the labels 0 to 1"),
        ({"in_memory": "yes"}, "in_memory is 'yes'"),
    ],
)
def test_bad_arguments_are_refused_at_once(root: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        folder(root, **arguments)


@pytest.mark.parametrize("num", [1, 2])
def test_too_few_images_for_three_splits(tmp_path: Path, num: int) -> None:
    for i in range(num):
        picture(i).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match=rf"{num - 1} example\(s\) are left for training and validation together"):
        folder(tmp_path).setup()
    picture(num).save(tmp_path / "more.png")
    if num == 2:
        data = folder(tmp_path, val_fraction=0.9, test_fraction=0.1)
        data.setup()
        assert [len(data.sources[split]) for split in ("train", "val", "test")] == [1, 1, 1]


class Sum(LightningModule):
    """Writes down each batch's sum; the loss has no meaning."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(batch[0].sum().item())
        return self.weight * batch[0].mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_reading_goes_on_within_an_epoch_and_leaves_the_random_state_alone(root: Path, tmp_path: Path) -> None:
    def trainer(max_steps: int) -> Trainer:
        return Trainer(
            default_root_dir=tmp_path,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            max_steps=max_steps,
        )

    torch.manual_seed(0)
    state = torch.get_rng_state()
    whole = Sum()
    trainer(8).fit(whole, datamodule=folder(root, in_memory=False))  # 4 batches an epoch
    assert torch.equal(torch.get_rng_state(), state)
    half = trainer(6)
    half.fit(Sum(), datamodule=folder(root, in_memory=False))
    half.save_checkpoint(tmp_path / "half.ckpt")
    rest = Sum()
    trainer(8).fit(rest, datamodule=folder(root, in_memory=False), ckpt_path=tmp_path / "half.ckpt")
    assert rest.seen == whole.seen[6:]


# ---- what follows from the pictures

AUTO = {"size": "auto", "channels": "auto", "batch_size": "auto"}


def write(root: Path, num: int, size: tuple[int, int], mode: str = "RGB", suffix: str = "png") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(num):
        picture(i, size).convert("L").convert(mode).save(root / f"{len(list(root.iterdir()))}.{suffix}")
    return root


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([((64, 64), 5)], 32),  # no more than can be learned in a quarter of an hour
        ([((24, 40), 5)], 24),  # of a picture the middle square is taken
        ([((30, 20), 3), ((8, 8), 2)], 20),  # most of them
        ([((9, 9), 1), ((12, 12), 1)], 10),
    ],
)
def test_the_size_is_that_of_most(tmp_path: Path, sizes: list[tuple[tuple[int, int], int]], expected: int) -> None:
    for size, num in sizes:
        write(tmp_path, num, size)
    data = ImageFolderDataModule(str(tmp_path))
    assert data.shape == (3, expected, expected) and data.batch_size == 128  # what is not left open stays
    assert folder(tmp_path, size=48).shape == (3, 48, 48)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGB", "RGBA", "P", "CMYK"])
def test_grey_pictures_are_read_as_grey_however_they_are_stored(tmp_path: Path, mode: str) -> None:
    suffix = "tiff" if mode == "CMYK" else "png"
    write(tmp_path, 10, (8, 8), mode, suffix)
    assert folder(tmp_path, channels="auto").shape[0] == 1
    picture(0).save(tmp_path / "colour.jpg")
    assert folder(tmp_path, channels="auto").shape[0] == 3


def test_the_batch_suits_size_and_number(tmp_path: Path) -> None:
    assert [suitable_batch(size, 10_000) for size in (8, 32, 64, 90, 128, 256, 2048)] == [64, 64, 64, 32, 16, 4, 1]
    assert [suitable_batch(32, num) for num in (1, 8, 100, 512, 600)] == [1, 1, 12, 64, 64]
    write(tmp_path, 100, (8, 8))
    data = folder(tmp_path, **AUTO)  # of 100 a tenth is for testing, and of the others one for validation
    assert data.batch_size == 81 // 8 and len(data.train_dataloader()) == 8
    assert folder(tmp_path, **AUTO, limit=16).batch_size == 2


def test_what_was_chosen_is_said_once_and_recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(module, "rank_zero_info", said.append)
    data = folder(root, **AUTO, flip=True)
    assert said == [
        f"{root.name}: 40 pictures, read at 16 × 16 pixels, in colour, 2 classes, in batches of 4, mirrored at random"
        " in training (--data.flip false); --data.size, --data.channels, --data.batch_size will have it otherwise."
    ]
    stated = {name: data.hparams[name] for name in AUTO}
    assert stated == {"size": 16, "channels": 3, "batch_size": 4}  # of other pictures it would be something else
    again = folder(root, **stated)
    assert again.shape == data.shape and len(said) == 1
    assert data.name == root.name


def test_damaged_pictures_do_not_count(root: Path) -> None:
    (root / "cat" / "0.png").write_bytes(b"")
    assert folder(root, size="auto").shape == (3, 16, 16)
    for file in root.glob("*/*.*"):
        file.write_text("no image")
    with pytest.raises(ValueError, match=r"cannot be used: .*Repair or remove it"):
        folder(root, size="auto")


@pytest.mark.parametrize("names", [("Train", "Test"), ("val", "test"), ("training", "validation")])
def test_folders_that_look_like_splits_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "1.png")
    with pytest.raises(ValueError, match="look like splits: call them train, and val and test"):
        ImageFolderDataModule(tmp_path, size=4).setup("fit")


def test_names_of_one_number_have_an_order() -> None:
    assert sorted(["1", "01", "a01", "a1", "10", "2"], key=natural) == ["01", "1", "2", "10", "a01", "a1"]
    assert sorted(["01", "1"], key=natural) == sorted(["1", "01"], key=natural)


def test_the_first_of_a_folder_for_validation_are_of_all_classes(tmp_path: Path) -> None:
    """They are all that a run with `limit_val_batches` looks at, and chooses its best checkpoint by."""
    for split, num in (("train", 4), ("val", 40)):
        for kind in ("cat", "dog"):
            for i in range(num):
                file = tmp_path / split / kind / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                picture(i, (8, 8)).save(file)
    data = folder(tmp_path, batch_size=16)
    labels = [y for _, y in data.val_dataloader()]
    assert set(labels[0].tolist()) == {0, 1} and 0.2 < float(labels[0].float().mean()) < 0.8
    assert torch.cat(labels).bincount().tolist() == [40, 40]
    again = folder(tmp_path, batch_size=16)
    assert all(map(torch.equal, labels, (y for _, y in again.val_dataloader())))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
def test_pictures_are_turned_as_pillow_turns_them(turn: int, mode: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    picture(3, (6, 4)).convert(mode).save(tmp_path / "turned.png", exif=exif)
    size = (6, 4) if turn > 4 else (4, 6)
    assert upright_size(tmp_path / "turned.png") == size
    with Image.open(tmp_path / "turned.png") as file:
        expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode(tmp_path / "turned.png", (3, size[1], size[0])).numpy(), expected)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("note", ["text", "chunk", "jpeg"])
def test_a_damaged_note_spoils_no_picture(note: str, in_memory: bool, root: Path) -> None:
    """It turns nothing: some programs write their settings where EXIF says how a picture lies."""
    extra, suffix = PngInfo(), "jpg" if note == "jpeg" else "png"
    if note == "text":
        extra.add_text("exif", "Exif\0\0settings")
    options: dict[str, Any] = {"pnginfo": extra} if note == "text" else {"exif": b"Exif\0\0settings"}
    plain, noted = root / "cat" / f"plain.{suffix}", root / "cat" / f"noted.{suffix}"
    picture(5).save(plain)
    picture(5).save(noted, dpi=(72, 72), **options)  # of a JPEG without, Pillow looks into the note itself
    with Image.open(noted) as file, pytest.raises(SyntaxError):
        ImageOps.exif_transpose(file)
    data = folder(root, in_memory=in_memory)
    data.prepare_data()
    data.setup("fit")
    assert torch.equal(decode(noted, (3, 8, 8)), decode(plain, (3, 8, 8)))
