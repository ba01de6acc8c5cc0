"""`python -m trunkline` is the `trunkline` command."""

import sys

from trunkline.cli import main

if __name__ == "__main__":
    sys.exit(main())
