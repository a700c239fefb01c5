"""Program aws_eks: see kos_infra/aws/eks.py."""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / "pulumi"), str(PROJECT / "runtime")]

from kos_infra.aws import eks  # noqa: E402 - found through the line above

eks.main()
