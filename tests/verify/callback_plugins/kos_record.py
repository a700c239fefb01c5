"""Records each run of ansible-playbook as one line of JSON, so that tests can look at what every task said.

The line is appended to the file that the environment variable KOS_RECORD names:
`{"playbook","check","results":[{"host","task","action","status","result"}],"stats":{host: {…}}}`.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kos_record
type: notification
short_description: Records what every task said
description: Appends one line of JSON for each run.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "kos_record"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._results: list[dict[str, Any]] = []
        self._playbook = ""

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._playbook = str(playbook._file_name)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._add(result, "changed" if result._result.get("changed") else "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._add(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._add(result, "unreachable")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._add(result, "skipped")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        run = {
            "playbook": self._playbook,
            "check": bool(context.CLIARGS.get("check")),
            "results": self._results,
            "stats": {host: stats.summarize(host) for host in stats.processed},
        }
        with open(os.environ["KOS_RECORD"], "a", encoding="utf-8") as record:  # noqa: PTH123 - one append
            record.write(json.dumps(run, default=str) + "\n")

    def _add(self, result: Any, status: str) -> None:
        self._results.append(
            {
                "host": result._host.get_name(),
                "task": result._task.get_name().strip(),
                "action": result._task.action,
                "status": status,
                "result": result._result,
            }
        )
