"""What `plt.show()` does in the code of a page: the picture is written into the page when the docs are built.

A page's code is then plain Matplotlib, which runs in a notebook, too, and draws the same there in this `STYLE`. The
label of a figure, `plt.figure("What it shows.")` or `plt.subplots(num="What it shows.")`, is its caption, and is read
out to those who cannot see it: so is the text of a picture from a file, `![What it shows.](front.png)`, in a
paragraph of its own.
"""

import base64
import html
import io
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

STYLE = {
    "figure.figsize": (7.0, 2.6),
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,  # of what is drawn as pixels: the rest is drawn as lines
    "image.cmap": "gray_r",
    "image.interpolation": "nearest",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "genzoo",  # the same code gives the same bytes
}


PICTURE = re.compile(r'<p>(<img alt="([^"]+)" src="[^"]+"\s*/?>)</p>')


def on_startup(**_: Any) -> None:
    """MkDocs calls this before it builds."""
    sys.path.append(str(Path(__file__).parent))  # what a page imports from this folder
    matplotlib.use("agg")
    plt.rcParams.update(STYLE)
    plt.show = show


def show() -> None:
    """Prints every open figure as HTML, and closes it."""
    page = sys._getframe(1).f_globals.get("print", print)  # markdown-exec gives a page's code a print of its own
    for number in plt.get_fignums():
        figure = plt.figure(number)
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        data = base64.b64encode(svg.getvalue()).decode()
        page(f'<p><img alt="{html.escape(figure.get_label())}" src="data:image/svg+xml;base64,{data}"></p>')
        plt.close(figure)


def on_page_content(page_html: str, **_: Any) -> str:
    """MkDocs hands over a page's HTML: what is said of a picture is written below it, and read out once."""
    return PICTURE.sub(r'<figure>\1<figcaption aria-hidden="true">\2</figcaption></figure>', page_html)
