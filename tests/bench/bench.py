"""Starts the benchmarks; `python tests/bench/bench.py --help` lists them."""

import sys
from pathlib import Path

# Run as a script, Python puts this folder first; the packages it needs are one above, and in runtime.
ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT / "tests"), str(ROOT / "runtime")]

from bench.cli import main  # noqa: E402 - found through the line above

if __name__ == "__main__":
    sys.exit(main())
