"""`genzoo export`: a model's networks as files that run without genzoo (`genzoo.zoo.hub.exporting` writes them)."""

from argparse import ArgumentParser, Namespace

from genzoo.arguments import add_allow, add_model, allowed, found
from genzoo.zoo import hub
from genzoo.zoo.hub.wording import blamed_on

EXAMPLE = "genzoo export digits/gan --to gan.onnx"
SAYS = "a model's networks as ONNX, or as a program of torch.export"


def add_arguments(parser: ArgumentParser) -> None:
    """Whose, which part, and where to."""
    add_model(parser)
    parser.add_argument("--to", required=True, help="a file: name.onnx, or name.pt2 (torch.export)")
    parser.add_argument("--part", help="one of several alone: encoder, decoder (default: each, as name-decoder.onnx)")
    add_allow(parser)


def run(given: Namespace) -> None:
    """Exports a model's networks, which take batches of any size; each file is run before it is put in its place."""
    from genzoo.zoo.hub.exporting import export

    model = hub.load_found(found(given.model), allow=allowed(given))
    with blamed_on(given.model):
        for path in export(model, given.to, given.part):
            print(path)
