"""Loads entries one after the other: of each its seconds, the megabytes by which the process grew, and the error."""

import resource
import sys
import time
from pathlib import Path

import genzoo
from genzoo.zoo.hub import Entry


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


good, *entries = map(Path, sys.argv[1:])
genzoo.load(good).sample(2)
for entry in entries:
    before, start, error = peak(), time.process_time(), "none"
    for attempt in (genzoo.load, lambda entry: Entry("x", entry).metrics):
        try:
            attempt(entry)
        except (ValueError, OSError) as refusal:
            error = type(refusal).__name__
    print(f"{time.process_time() - start:.3f}\t{peak() - before:.1f}\t{error}", flush=True)
