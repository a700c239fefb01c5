"""Program aws_fleet: see kos_infra/aws/fleet.py."""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / "pulumi"), str(PROJECT / "runtime")]

from kos_infra.aws import fleet  # noqa: E402 - found through the line above

fleet.main(Path(__file__).resolve().parent)
