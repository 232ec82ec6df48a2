"""`python -m genzoo` is the command `genzoo`."""

from genzoo.cli import main

if __name__ == "__main__":
    main()
