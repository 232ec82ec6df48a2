"""The command `genzoo`: the small commands answer at once, the others go on to Lightning."""

import os
import sys
from typing import NoReturn

USAGE = """\
usage: genzoo <command> [arguments]

train and measure (`genzoo fit --help` lists everything that Lightning's command line takes)
  fit        genzoo fit --config mnist/vae                     train a recipe: its name, or a YAML file
  validate   genzoo validate --config mnist/vae --ckpt_path X  the validation figures of a checkpoint
  test       genzoo test --config mnist/vae --ckpt_path X      the test figures of a checkpoint
  predict    genzoo predict --config mnist/vae --ckpt_path X   what the model says of each test datum

the zoo
  list       genzoo list                                       the entries with their figures, and the recipes
  cp         genzoo cp mnist/vae my.yaml                       copy a recipe to edit
  sample     genzoo sample mnist/vae --out grid.png            draw samples of an entry
  evaluate   genzoo evaluate mnist/vae                         measure an entry, beside what it published
  compare    genzoo compare digits --out page.html             models of the same data, side by side
  publish    genzoo publish --ckpt_path X --name mnist/vae     make an entry of a checkpoint

`genzoo <command> --help` says more; GENZOO_DEBUG=1 shows where an error came from.
"""


def debugging() -> bool:
    """Whether GENZOO_DEBUG asks for tracebacks."""
    return bool(os.environ.get("GENZOO_DEBUG"))


def refuse(message: str) -> NoReturn:
    """Ends the program with one error for the user, exit code 2: one line, whoever's words are in it."""
    from genzoo.zoo.hub.wording import one_line

    print(f"genzoo: error: {one_line(message)}", file=sys.stderr)
    raise SystemExit(2)


def import_from_here() -> None:
    """Lets a recipe, or `--allow`, name a class in a file of the current folder, as `python -m` would."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def main(argv: list[str] | None = None) -> None:
    """Runs one command.

    Args:
        argv: The arguments after `genzoo`; by default those of the process.

    Raises:
        SystemExit: 2, after one readable error, for a mistake in the arguments, a recipe or the data.
    """
    argv = sys.argv[1:] if argv is None else argv
    command = argv[0] if argv else "--help"
    if command in {"-h", "--help"}:
        print(USAGE, end="")
    elif command == "--version":
        from genzoo import __version__

        print(f"genzoo {__version__}")
    elif command in {"fit", "validate", "test", "predict"}:
        from genzoo import fit

        fit.run(argv)
    else:
        from genzoo import commands

        try:
            commands.run(argv)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            if debugging():
                raise
            refuse(str(error))
