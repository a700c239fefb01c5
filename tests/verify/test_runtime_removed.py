"""Taking role runtime away takes its agents away, and not the release."""

from __future__ import annotations

from testinfra.host import Host

from verify import node as kos


def test_the_agent_is_gone_and_the_release_runs_on(node: Host) -> None:
    running = kos.units(node)
    assert "kos-scribe.service" not in running
    assert "kos-kosd.service" in running
    assert not node.file("/etc/kos/units.d/scribe").exists
    assert kos.ask(node, "status")["state"] == "CONFIRMED"
