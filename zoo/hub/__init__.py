"""The zoo's entries: listing, finding, loading and publishing them.

An entry is a folder (`entries.py`) of files that are data, whoever made them (`schema.py`), with the model of one
task (`tasks.py`); what is yet to become one is a checkpoint (`checkpoints.py`). It has an address (`addresses.py`),
is loaded with care (`loading.py`: out of the classes in `building.py`, after a `rehearsal.py` without memory, with
the tensors of `weights.py`), is published as a whole (`publishing.py`), and describes itself (`card.py`).

Loading never unpickles, and builds only classes of genzoo, of torch.nn and those allowed by hand. PyTorch is
imported when a model is loaded or published, not before.
"""

import sys

from genzoo.zoo import sharing
from genzoo.zoo.hub.addresses import find, resolve
from genzoo.zoo.hub.checkpoints import Checkpoint
from genzoo.zoo.hub.entries import Entry, by_task, list_models, read_config
from genzoo.zoo.hub.loading import load, load_checkpoint, load_found
from genzoo.zoo.hub.publishing import publish, republish
from genzoo.zoo.hub.tasks import called, name_of

__all__ = [
    "Checkpoint",
    "Entry",
    "by_task",
    "called",
    "find",
    "list_models",
    "load",
    "load_checkpoint",
    "load_found",
    "name_of",
    "publish",
    "read_config",
    "republish",
    "resolve",
]

sharing.hub = sys.modules[__name__]
