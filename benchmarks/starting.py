"""How long a command takes before it does something, beside nothing but importing Lightning."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from benchmarks import data
from benchmarks.contest import Contest, Rival

#: as `genzoo fit` does it; the process ends with the first step
FIRST_STEP = """
import os
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop as Loop
advance = Loop.advance
def once(*arguments):
    advance(*arguments)
    os._exit(0)
Loop.advance = once
from genzoo.cli import main
main(["fit", "--config", "digits/vae", "--trainer.default_root_dir", {folder!r}])
"""
SAMPLE = "from genzoo.cli import main; main(['sample', 'digits/vae', '--out', {folder!r} + '/samples.png'])"


def python(program: str, times: int) -> None:
    """Runs a program in a process of its own, so many times."""
    for _ in range(times):
        command = [sys.executable, "-c", program.format(folder=str(data.folder()))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def contests() -> Iterator[Contest]:
    """Sampling, and training to the first step."""
    lightning = partial(python, "import lightning.pytorch")
    for name, program, wanted in (
        ("genzoo sample digits/vae", SAMPLE, 1.0),
        ("genzoo fit --config digits/vae, to its first step", FIRST_STEP, 1 / 1.5),
    ):
        rival = Rival("import lightning", lightning, wanted)
        yield Contest("starting", name, "start", partial(python, program), [rival], (0, 1))
