"""The command `genzoo`: which command it is, and one plain line where it fails.

`fit`, `validate`, `test` and `predict` are Lightning's, with habits of our own (`fit.py`). Each of the others is a
file in `commands/`, and answers without waiting for PyTorch.
"""

import os
import sys

from genzoo import commands
from genzoo.errors import debugging, did_you_mean, refuse
from genzoo.memory import keep_memory

#: Lightning's commands: an example of each, and what it does
LIGHTNING = {
    "fit": ("genzoo fit --config mnist/vae", "train a recipe: its name, or a YAML file"),
    "validate": ("genzoo validate --config mnist/vae --ckpt_path X", "the validation figures of a checkpoint"),
    "test": ("genzoo test --config mnist/vae --ckpt_path X", "the test figures of a checkpoint"),
    "predict": ("genzoo predict --config mnist/vae --ckpt_path X", "what the model says of each test datum"),
}

USAGE = """\
usage: genzoo <command> [arguments]

train and measure (`genzoo fit --help` lists everything that Lightning's command line takes)
{lightning}

the zoo
{zoo}

`genzoo <command> --help` says more; GENZOO_DEBUG=1 shows where an error came from.
"""


def usage() -> str:
    """What `genzoo --help` prints: every command, by an example and in a few words."""
    zoo = {name: (module.EXAMPLE, module.SAYS) for name, module in commands.modules().items()}
    names = max(map(len, [*LIGHTNING, *zoo]))
    examples = max(len(example) for example, _ in [*LIGHTNING.values(), *zoo.values()])

    def lines(block: dict[str, tuple[str, str]]) -> str:
        return "\n".join(f"  {name:<{names}}  {eg:<{examples}}  {says}" for name, (eg, says) in block.items())

    return USAGE.format(lightning=lines(LIGHTNING), zoo=lines(zoo))


def main(argv: list[str] | None = None) -> None:
    """Runs one command.

    Args:
        argv: The arguments after `genzoo`; by default those of the process.

    Raises:
        SystemExit: 2, after one readable error, for a mistake in the arguments, a recipe or the data.
    """
    try:
        _run(argv)
    except KeyboardInterrupt:  # a run says itself what it has kept
        raise SystemExit(130) from None


def _run(argv: list[str] | None) -> None:
    keep_memory()
    command, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in {"-h", "--help"}:
        print(usage(), end="")
    elif command == "--version":
        from genzoo.version import __version__

        print(f"genzoo {__version__}")
    elif command in LIGHTNING:
        from genzoo import fit

        fit.run([command, *arguments])
    elif command in commands.names():
        given = commands.parser(command).parse_args(arguments)
        try:
            given.run(given)
        except BrokenPipeError:  # whoever reads, `head` say, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
        except (ValueError, OSError, ModuleNotFoundError) as error:
            if debugging():
                raise
            refuse(str(error))
    else:
        names = [*LIGHTNING, *commands.names()]
        hint = did_you_mean(command, names) or f"; the commands are: {', '.join(names)}."
        refuse(f"{command!r} is no command of genzoo{hint}")
