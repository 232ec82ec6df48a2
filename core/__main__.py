"""`python -m genzoo` is the command `genzoo`."""

import os
import sys

if sys.path[0] == os.getcwd():  # where Python would look first: see `arguments.import_from_here`
    del sys.path[0]

from genzoo.cli import main

if __name__ == "__main__":
    main()
