"""Check mode of role mirror on a clean host: the whole plan, before anything is written."""

from __future__ import annotations

from verify import record


def test_the_plan_names_the_files_and_the_service(last_check: record.Run) -> None:
    (said,) = last_check.of("kos.fleet.mirror", "mirror1")
    assert said.status == "changed"
    assert said.result["sent"] == said.result["files"] > 10
    told = " ".join(said.result["actions"])
    assert "/etc/kos-mirror/nginx.conf" in told
    assert "kos-mirror.service" in told
