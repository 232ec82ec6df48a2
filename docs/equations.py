"""Sets equations when the docs are built: LaTeX between `$` and `$`, or `$$` on lines of their own, as MathML.

A browser draws MathML by itself, without a script and offline, and it can be read out. GitHub reads the same dollars.
"""

import html
import re
from typing import Any

from math_core import LatexError, LatexToMathML

LATEX = LatexToMathML(fancy_error=False)
#: what pymdownx.arithmatex makes of the dollars, and what closes the sentence or the clause after it
FOUND = re.compile(r'<(span|div) class="arithmatex">\\[(\[]\n?(.*?)\n?\\[)\]]</\1>([.,;:?!)]*)', re.S)


def mathml(latex: str, display: bool = False) -> str:
    """The equation as MathML, `display` for one that has a line of its own.

    Raises:
        ValueError: it is no LaTeX, or has a command that is not known.
    """
    try:
        return LATEX.convert_with_local_state(latex, displaystyle=display)
    except LatexError as error:
        raise ValueError(f"the equation {latex!r} cannot be set: {error}") from None


def on_page_content(page_html: str, **_: Any) -> str:
    """MkDocs hands over a page's HTML, where an equation is a span, or a block, of LaTeX."""

    def put(found: re.Match[str]) -> str:
        tag, latex = found[1], html.unescape(found[2])
        return f'<{tag} class="equation">{mathml(latex, display=tag == "div")}{found[3]}</{tag}>'

    return FOUND.sub(put, page_html)
