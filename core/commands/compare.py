"""`genzoo compare`: models of the same data, side by side on one page (`genzoo.compare` writes it)."""

from argparse import ArgumentParser, Namespace

from genzoo.arguments import MODEL, add_machine, add_root, allowed, data_of, device, note, ready

EXAMPLE = "genzoo compare digits --out page.html"
SAYS = "models of the same data, side by side"


def add_arguments(parser: ArgumentParser) -> None:
    """Of what, and where to."""
    parser.add_argument(
        "entries",
        nargs="+",
        help=f"the data (digits: all of the zoo's models of them), and models, each {MODEL}",
    )
    parser.add_argument("--out", default="compare.html", help="the page to write (default: compare.html)")
    add_root(parser)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: 0)")
    add_machine(parser)


def run(given: Namespace) -> None:
    """Writes one page, for any browser, that shows models of the same data side by side."""
    from genzoo.compare import entries_to_compare, write_page

    out = ready(given.out, suffixes=[".html"])
    write_page(
        entries_to_compare(given.entries, note=note),
        out,
        data_of=lambda entry: data_of(entry, given),
        device=device(given),
        seed=given.seed,
        allow=allowed(given),
    )
    print(out)
