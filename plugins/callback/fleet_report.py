# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callback that writes what a run did to the fleet: a JSON file for machines, one HTML page for people."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_report
type: notification
short_description: Report of trials and waves
version_added: 1.0.0
description:
  - Collects what tasks of M(kos.fleet.release) said on each node, and which waves a rollout had.
  - A run that found everything as wanted, or only planned, writes nothing; nor does a plan that a rollout
    asks for first, unless it is refused.
  - Writes one JSON file for each other run into C(runs), and C(report.json) and C(index.html) over all runs
    that are there. The page needs nothing but itself, and links other pages in its folder.
requirements:
  - enabled in C(callbacks_enabled)
options:
  report_dir:
    description: Folder for the report, on the controller.
    type: path
    default: build/report
    env:
      - name: KOS_REPORT_DIR
    ini:
      - section: callback_fleet_report
        key: report_dir
"""

import json
import time
import typing as t
from pathlib import Path

from ansible.plugins.callback import CallbackBase

from ansible_collections.kos.fleet.plugins.plugin_utils import _report, _whole_file

RELEASE = "kos.fleet.release"
PLAN = "kos.fleet.inventory_check"
GATE = "kos.fleet.wave_gate"


class CallbackModule(CallbackBase):
    """Listens to results; writes at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "kos.fleet.fleet_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: t.Any, **options: t.Any) -> None:
        super().__init__(*arguments, **options)
        self._run = _report.Run(playbook="", started=time.time())

    def v2_playbook_on_start(self, playbook: t.Any) -> None:
        self._run = _report.Run(playbook=Path(playbook._file_name).stem, started=time.time())

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        if task.resolved_action == RELEASE:
            self._run.begin(host.get_name(), time.time())

    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._take(result)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._take(result, failed=True)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        self._take(result, unreachable=True)

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        self._run.ended = time.time()
        if not self._run.eventful:
            return
        folder = Path(self.get_option("report_dir"))
        runs = folder / "runs"
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._run.started))
        number = f"{int(self._run.started * 1000) % 1000:03d}"
        text = json.dumps(self._run.as_dict(), indent=2, sort_keys=True) + "\n"
        _whole_file.write(runs / f"{stamp}-{number}-{self._run.playbook}.json", text.encode())
        known = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(runs.glob("*.json"))]
        report = json.dumps({"runs": known}, indent=2) + "\n"
        _whole_file.write(folder / "report.json", report.encode())
        page = folder / "index.html"
        others = sorted(path.name for path in folder.glob("*.html") if path != page)
        _whole_file.write(page, _report.html(known, others).encode())
        self._display.display(f"Report: {page}")

    def _take(self, result: t.Any, *, failed: bool = False, unreachable: bool = False) -> None:
        action, host = result.task.resolved_action, result.host.get_name()
        said = result.result
        if action == PLAN:
            for zone, nodes in (said.get("zones") or {}).items():
                self._run.zones.update(dict.fromkeys(nodes, zone))
        elif action == GATE:
            self._run.waves = said.get("waves") or self._run.waves
            self._run.stopped = str(said["reason"]) if said.get("stop") else self._run.stopped
        elif action == RELEASE and not said.get("skipped"):
            # A plan moves nothing; one that was refused tells why nothing was moved.
            if result.task.check_mode and not (failed or unreachable):
                return
            self._run.end(host, {**said, "failed": failed, "unreachable": unreachable}, time.time())
