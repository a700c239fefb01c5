"""What monitoring reads of the backups: the textfile format of Prometheus' node exporter (K16, K17)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import boot, files
from .config import BackupConfig
from .places import Places
from .runs import Runs

_HELP = {
    "kos_backup_last_run_timestamp_seconds": "When a run of the source ended.",
    "kos_backup_last_success_timestamp_seconds": "When a run of the source ended without a failure.",
    "kos_backup_last_run_ok": "Whether the last run of the source succeeded.",
    "kos_backup_interval_seconds": "How old the last success may be.",
    "kos_backup_duration_seconds": "How long the last run of the source took.",
    "kos_backup_files": "Files in the last snapshot of the source.",
    "kos_backup_bytes": "Bytes in the last snapshot of the source.",
    "kos_backup_added_bytes": "Bytes that the last run of the source added to the repositories.",
    "kos_backup_unstable_paths": "Paths that changed while they were read.",
    "kos_backup_missing_paths": "Paths that could not be read.",
    "kos_backup_snapshots_made": "In how many repositories the last run put a snapshot.",
    "kos_backup_repositories": "In how many it has to.",
}


def write(config: BackupConfig, places: Places, runs: Runs) -> None:
    """Write the metrics of all sources that are backed up."""
    places.metrics.parent.mkdir(parents=True, exist_ok=True)
    files.write_durable(places.metrics, render(config, runs.all()).encode("utf-8"))


def render(config: BackupConfig, entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the metrics as text.

    Args:
        entries: lines of `runs.jsonl`, oldest first.
    """
    last: dict[str, Mapping[str, Any]] = {}
    good: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        if entry.get("kind") == "run":
            last[str(entry["source"])] = entry
            if entry["ok"]:
                good[str(entry["source"])] = entry
    samples: dict[str, list[str]] = {name: [] for name in _HELP}
    for spec in config.sources:
        if spec.rank == "skip":
            continue
        labels = f'{{source="{spec.name}",class="{spec.rank}",method="{spec.method}"}}'

        def add(name: str, value: float, labels: str = labels) -> None:
            samples[name].append(f"{name}{labels} {value:g}" if value % 1 else f"{name}{labels} {value:.0f}")

        # 0 where there is none: a source that was never backed up is stale too.
        add("kos_backup_last_success_timestamp_seconds", _seconds(good.get(spec.name)))
        add("kos_backup_interval_seconds", spec.interval_s)
        add("kos_backup_repositories", len(config.repositories))
        newest = last.get(spec.name)
        add("kos_backup_last_run_timestamp_seconds", _seconds(newest))
        add("kos_backup_last_run_ok", 1 if newest is not None and newest["ok"] else 0)
        if newest is not None:
            add("kos_backup_duration_seconds", int(newest["ms"]) / 1000)
            add("kos_backup_files", int(newest["files"]))
            add("kos_backup_bytes", int(newest["bytes"]))
            add("kos_backup_added_bytes", int(newest["added_bytes"]))
            add("kos_backup_unstable_paths", int(newest["unstable"]))
            add("kos_backup_missing_paths", int(newest["lacks"]))
            add("kos_backup_snapshots_made", len(newest["snapshots"]))
    lines = []
    for name, values in samples.items():
        if values:
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge", *values]
    return "\n".join(lines) + "\n"


def _seconds(entry: Mapping[str, Any] | None) -> float:
    return 0 if entry is None else boot.moment(str(entry["time"])).timestamp()
