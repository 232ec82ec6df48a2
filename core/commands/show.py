"""`genzoo show`: an entry's card."""

from argparse import ArgumentParser, Namespace

from genzoo.zoo import hub

EXAMPLE = "genzoo show mnist/vae"
SAYS = "an entry's card: its data, its training, every figure and how it was measured"


def add_arguments(parser: ArgumentParser) -> None:
    """Whose."""
    parser.add_argument("entry", help="its name, as `genzoo list` shows it, a folder or an address")


def run(given: Namespace) -> None:
    """Prints the card of an entry, set for the terminal."""
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.table import Table

    from genzoo.zoo.hub.card import in_words, model_card

    entry = hub.find(given.entry)
    if isinstance(entry, hub.Checkpoint):
        raise ValueError(f"{given.entry} is a checkpoint, or a run with some, which has no card: `genzoo publish` it")
    folder = entry.path
    config, metrics = hub.read_config(folder), hub.Entry(given.entry, folder).metrics
    card = model_card(given.entry, config, metrics).partition("\n---\n")[2]
    before, _, after = card.partition("## Figures\n")
    table = Table("figure", "value", "how it was measured", box=None, header_style="dim", padding=(0, 1, 1, 0))
    for figure in metrics.get("figures", []):
        on = [f"{figure['split']} split"] if "split" in figure else []
        on += [f"{figure['num_examples']:,}"] if "split" in figure and "num_examples" in figure else []
        how = ": ".join(filter(None, [", ".join(on), figure.get("protocol", "")]))
        table.add_row(figure["name"], f"{in_words(figure)} {figure['unit']}", how)
    console = Console(highlight=False, markup=False)
    console.print(Markdown(before + "## Figures"), table, Markdown("## Limits" + after.partition("## Limits")[2]))
