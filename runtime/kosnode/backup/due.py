"""Which sources a run by the timer takes: those whose interval would be over before the next one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from .. import boot
from .config import SourceSpec


def of(
    sources: Sequence[SourceSpec], entries: Iterable[Mapping[str, Any]], now: datetime
) -> list[SourceSpec]:
    """Return the sources that are due; the timer runs at the shortest of their intervals.

    A source that never succeeded, or that did so in the future, is due.

    Args:
        entries: lines of `runs.jsonl`.
    """
    good = {str(entry["source"]): entry for entry in entries if entry.get("kind") == "run" and entry["ok"]}
    pause_s = min((spec.interval_s for spec in sources), default=0)

    def is_due(spec: SourceSpec) -> bool:
        if spec.name not in good:
            return True
        age_s = (now - boot.moment(str(good[spec.name]["time"]))).total_seconds()
        return age_s < 0 or age_s + pause_s > spec.interval_s

    return [spec for spec in sources if is_due(spec)]
