"""Draws the README's picture, docs/front.png, by the code of the comparison page: `python docs/front.py`.

A row for each model: what it draws, from one seed. Beside the clone, genzoo has to be installed, and nothing else.
"""

from pathlib import Path

import torch
from PIL import Image

import genzoo
from genzoo.compare.pictures import sheet
from genzoo.zoo.drawing import draw

ROWS = ("emoji/flow-matching", "fashion/flow-matching", "cifar10/flow-matching", "mnist/ddpm")
COLUMNS, SIDE = 20, 64  # pictures in a row; pixels of each


def strip(name: str) -> torch.Tensor:
    """A row of samples, (SIDE, ·, 4), grey ones black on white."""
    module = genzoo.load(name)
    with torch.no_grad():
        x = draw(module.sample, COLUMNS, 5).cpu()
    x = (1 - x).expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
    larger = torch.nn.functional.interpolate(x, SIDE, mode="nearest-exact")
    return sheet(larger[None])


if __name__ == "__main__":
    rows = [strip(name) for name in ROWS]
    width, height = max(row.shape[1] for row in rows), sum(row.shape[0] + 6 for row in rows) - 6
    picture = Image.new("RGBA", (width, height), "white")
    top = 0
    for row in rows:
        painted = Image.fromarray(row.contiguous().numpy(), "RGBA")
        picture.paste(painted, (0, top), painted)  # gaps are transparent
        top += row.shape[0] + 6
    picture.convert("RGB").quantize(64, method=Image.Quantize.MEDIANCUT, kmeans=3).save(
        Path(__file__).with_name("front.png"), optimize=True
    )
