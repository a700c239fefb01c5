"""Runs kosctl: `python -m kosnode`."""

import sys

from .cli import main

sys.exit(main())
