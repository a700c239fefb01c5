"""Check mode of role bootstrap on a clean host: the whole plan, before anything is written."""

from __future__ import annotations

import pytest

from verify import record

EXPECTED = (
    "unpack kosctl",
    "create account kos",
    "create account kosops",
    "create folder /opt/kos",
    "create folder /var/lib/kos",
    "create /etc/kos/node.json",
    "create /etc/kos/trust/root.json",
    "create /etc/sudoers.d/kos",
    "create /etc/systemd/system-generators/kos",
    "create /opt/kos/fallback",
    "link /etc/systemd/system/multi-user.target.wants/kos-boot.service",
    "start kos.target",
)


@pytest.mark.parametrize("host", ["node1", "node5"])
def test_the_plan_names_every_step(last_check: record.Run, host: str) -> None:
    (said,) = last_check.of("kos.fleet.bootstrap", host)
    assert said.status == "changed"
    actions = said.result["actions"]
    assert [step for step in EXPECTED if not any(action.startswith(step) for action in actions)] == []


@pytest.mark.parametrize("host", ["node1", "node5"])
def test_the_diff_shows_the_configuration(last_check: record.Run, host: str) -> None:
    (said,) = last_check.of("kos.fleet.bootstrap", host)
    node_json = next(one for one in said.result["diff"] if one["after_header"] == "/etc/kos/node.json")
    assert node_json["before"] == ""
    assert f'"node": "{host}"' in node_json["after"]
    assert '"fleet": "molecule"' in node_json["after"]
