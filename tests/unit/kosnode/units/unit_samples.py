"""Documents that the tests of units start from, and the number of rounds of random tests."""

from __future__ import annotations

import copy
import os
from typing import Any

from hypothesis import HealthCheck, settings

ROUNDS = settings(
    max_examples=int(os.environ.get("KOS_ROUNDS", "100")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
RELEASE = "ab" * 32

SMALL: dict[str, Any] = {"id": "a", "version": "1.0.0", "tier": 2, "entry": {"command": ["bin/a"]}}

# Every key that this version supports.
FULL: dict[str, Any] = {
    "id": "meter",
    "version": "1.2.3-rc.1",
    "description": "Counts.",
    "tier": 2,
    "trust": "trusted",
    "format": "native",
    "entry": {
        "command": ["bin/meter", "--label", "a b"],
        "type": "notify",
        "watchdog": "10s",
        "timeout": "2m",
        "user": "kos",
        "env": {"GREETING": "hello world", "EMPTY": ""},
        "reload": "HUP",
    },
    "files": ["bin/meter", "lib"],
    "resources": {"max": {"memory": "128M", "tasks": 64, "cpu": "50%"}, "min": {"memory": "16M"}},
    "health": [
        {"unit": {"active": True}},
        {
            "http": {"url": "http://127.0.0.1:9100/h", "status": [200, 204], "json": {"/status": ["ok"]}},
            "timeout": "2s",
        },
        {"tcp": {"host": "localhost", "port": 9100}},
        {"command": ["bin/probe", "--deep"]},
        {"file_age": {"path": "last.json", "max": "5m"}},
    ],
    "network": {
        "ingress": [{"port": 9100, "proto": "tcp", "from": ["localhost", "10.0.0.0/8"]}],
        "egress": [{"host": "192.0.2.7", "port": 443, "proto": "tcp"}],
    },
    "state": {"migrated": False},
}


def full(**changes: Any) -> dict[str, Any]:
    """Return a copy of FULL with top-level keys replaced."""
    return {**copy.deepcopy(FULL), **changes}


def small(**changes: Any) -> dict[str, Any]:
    """Return a copy of SMALL with top-level keys replaced."""
    return {**copy.deepcopy(SMALL), **changes}


def entry(**changes: Any) -> dict[str, Any]:
    """Return SMALL with keys of its entry replaced."""
    return small(entry={**SMALL["entry"], **changes})
