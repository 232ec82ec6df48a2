"""Memory that was freed is there for the next tensor."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from genzoo.memory import keep_memory

torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    return sum(float(torch.ones(16 * 2**20)[-1]) for _ in range(4))  # 64 MiB each

for _ in range(6):  # the heap grows until each finds its place
    use()
before = faults()
use()
print(faults() - before)
"""


@pytest.mark.parametrize(("how", "least", "most"), [("kept", 0, 1000), ("given back", 4 * 128, 10**9)])
def test_large_tensors_are_paged_in_once(how, least, most):
    """A tensor of 64 MiB is 16,384 pages of 4 KiB, or 32 of 2 MiB where the system gives out such."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    assert least <= int(run.stdout) <= most
