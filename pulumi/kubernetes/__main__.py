"""Program kubernetes: see kos_infra/kubernetes/program.py."""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / "pulumi"), str(PROJECT / "runtime")]

from kos_infra.kubernetes import program  # noqa: E402 - found through the line above

program.main(Path(__file__).resolve().parent)
