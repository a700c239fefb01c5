"""`kosctl backup apply` and `kosctl backup remove`, for role backup: from arguments to a result."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import files
from ..command import Result
from .context import Context

if TYPE_CHECKING:
    from ..host import Change

# A host that drills knows the tables of all nodes that it drills.
MAX_SPEC_BYTES = 16 * 1024 * 1024


def apply(context: Context, args: argparse.Namespace) -> Result:
    """Make the host as the spec on standard input says (for role backup)."""
    # What shapes a host takes long to import, and a run does without.
    from . import host

    data = sys.stdin.buffer.read(MAX_SPEC_BYTES + 1)
    done = host.apply(
        files.parse(data, limit=MAX_SPEC_BYTES, what="the spec"), context.paths, check=args.check
    )
    return _result(done.pop("changes"), done)


def remove(context: Context, args: argparse.Namespace) -> Result:
    """Take timers, server, table and secrets off the host; the data stays (for role backup)."""
    from . import host

    return _result(host.remove(context.paths, check=args.check), {})


def _result(changes: Sequence[Change], more: dict[str, object]) -> Result:
    shown = [one for one in changes if one.path is not None]
    diff = [{"path": one.path, "before": one.before or "", "after": one.after or ""} for one in shown]
    return Result({**more, "diff": diff}, bool(changes), [one.action for one in changes])
