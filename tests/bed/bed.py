"""Starts the command line of the test bed; `python tests/bed/bed.py --help` lists what it can do."""

import sys
from pathlib import Path

# Run as a script, Python puts this folder first, where this file would hide the package of the same name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from bed.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
