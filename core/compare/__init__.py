"""`genzoo compare`: one page, for any browser, that shows models of the same data side by side.

The data that all are asked about are chosen in `questions.py`. What a model is asked depends on its capabilities
alone (`exhibits.py`, and `samples.py` for what it draws); what is said about its family stands in one table
(`families.py`). The page (`page.html`, `page.css`, `page.js`) is one file, with its pictures inside.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from warnings import warn

from genzoo.zoo import hub
from genzoo.zoo.hub import Entry
from genzoo.zoo.hub.wording import blamed_on, masked

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

__all__ = ["entries_to_compare", "write_page"]


def entries_to_compare(names: Sequence[str], *, note: Callable[[str], None] = warn) -> list[Entry]:
    """What the command line names: each one of the zoo's data sets, for all of its entries, or a model itself.

    A page shows data of one shape. Of a data set those entries are meant that have the shape of the models named
    beside it, or else that of most of them; what else there is, `note` is told.

    Raises:
        ValueError: a data set that has no entries; the message lists those that have.
        FileNotFoundError: no entry or checkpoint has such a name.
    """
    data_sets = list(dict.fromkeys(entry.name.partition("/")[0] for entry in hub.list_models()))
    found: dict[str, Entry] = {}  # by what was named; a whole data set's by their own names
    of_sets: set[str] = set()
    for name in names:
        if "/" not in name and name in data_sets and not _is_model(Path(name)):
            whole = {entry.name: entry for entry in hub.list_models(f"{name}/*")}
            of_sets |= whole.keys() - found.keys()
            found |= whole
        elif "/" not in name and not _is_model(Path(name)):
            known = ", ".join(data_sets) or "none"
            raise ValueError(f"the zoo has no models of {name!r}; it has models of: {known}; or name models")
        else:
            found[name] = hub.find(name)
            of_sets.discard(name)
    found = _of_one_shape(found, of_sets, note)
    own = {name: entry.config["name"] for name, entry in found.items()}
    alike = {name for name in own.values() if list(own.values()).count(name) > 1}  # told apart by where they lie
    return [replace(entry, name=masked(name) if own[name] in alike else own[name]) for name, entry in found.items()]


def _of_one_shape(found: dict[str, Entry], of_sets: set[str], note: Callable[[str], None]) -> dict[str, Entry]:
    """Without the entries of whole data sets whose shape is another than of what is named beside, or of most."""
    shapes = {name: tuple(entry.config.get("shape") or ()) for name, entry in found.items()}
    named = [shapes[name] for name in found if name not in of_sets]
    shape = Counter(named or shapes.values()).most_common(1)[0][0] if found else ()
    if others := [name for name in found if name in of_sets and shapes[name] != shape]:
        note(f"a page shows data of one shape, here {shape}: without {', '.join(others)}")
    return {name: entry for name, entry in found.items() if name not in others}


def _is_model(path: Path) -> bool:
    """Whether a file or a folder of the user's can be what is meant, rather than a data set of that name."""
    return path.is_file() or (path / "config.yaml").is_file() or (path / "checkpoints").is_dir()


def write_page(
    entries: Sequence[Entry],
    out: Path,
    *,
    data_of: "Callable[[Entry], LightningDataModule]",
    device: str = "cpu",
    seed: int = 0,
    allow: tuple[type, ...] = (),
) -> None:
    """Asks every model the same questions and writes what they answer, whole or not at all.

    Entries that are no generative models (classifiers, tokenizers) are left out, which is said.

    Args:
        entries: of models of data of one shape, images or points in the plane.
        out: the HTML file.
        data_of: makes the datamodule of an entry's data.
        device: where to compute.
        seed: of the choice of data and of all noise.
        allow: classes beyond genzoo's that entries may name.

    Raises:
        ValueError: if there is no model, or the models are of data that differ in shape or cannot be shown.
    """
    import jinja2
    from rich.progress import track

    from genzoo.compare.exhibits import Exhibition, open_exhibition
    from genzoo.compare.families import in_order
    from genzoo.version import __version__
    from genzoo.zoo.files import whole

    exhibition: Exhibition = open_exhibition(entries, data_of=data_of, device=device, seed=seed, allow=allow)
    for ask, doing in ((exhibition.fill, "asking the models"), (exhibition.judge, "asking what they find odd")):
        for exhibit in track(exhibition.exhibits, description=doing, transient=True):
            with blamed_on(exhibit.name):
                ask(exhibit)
    here = files(__name__)
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (here / "page.html").read_text("utf-8")
    )
    page = template.render(
        exhibition=exhibition,
        families=in_order(exhibition.exhibits),
        css=(here / "page.css").read_text("utf-8"),
        js=(here / "page.js").read_text("utf-8"),
        version=__version__,
    )
    with whole(out) as half:
        half.write_text(page, encoding="utf-8")
