"""The zoo's entries: listing, finding, loading and publishing them.

An entry is a folder (`entries.py`) of files that are data, whoever made them (`schema.py`). It has an address
(`addresses.py`), is loaded with care (`loading.py`: out of the classes in `building.py`, with the `weights.py` that a
`rehearsal.py` has shown to fit), is published as a whole (`publishing.py`), and describes itself (`card.py`).

Loading never unpickles, and builds only classes of genzoo, of torch.nn and those allowed by hand. PyTorch is
imported when a model is loaded or published, not before.
"""

from genzoo.zoo.hub.addresses import resolve
from genzoo.zoo.hub.entries import Entry, list_models, read_config
from genzoo.zoo.hub.loading import load, load_checkpoint
from genzoo.zoo.hub.publishing import publish

__all__ = ["Entry", "list_models", "load", "load_checkpoint", "publish", "read_config", "resolve"]
