"""A migration runs as the account of its unit, shut in, bounded, and `fallback` can stop it (C18, S22)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kosnode import migration
from kosnode.errors import KosError

TREE = Path("/var/lib/kos/releases/x/tree")


def test_the_call_names_account_state_limit_and_unit() -> None:
    argv = migration.command("db", "kos", ["bin/up", "-x"], TREE)
    assert "--unit=kos-migrate-db" in argv
    assert "--uid=kos" in argv
    assert "--service-type=oneshot" in argv
    properties = {one.removeprefix("--property=") for one in argv if one.startswith("--property=")}
    assert {"ProtectSystem=strict", "NoNewPrivileges=yes", "StateDirectory=kos/state/db"} <= properties
    assert f"TimeoutStartSec={migration.TIMEOUT_S}" in properties
    assert argv[argv.index("--") + 1 :] == [f"{TREE}/bin/up", "-x"]


@pytest.mark.parametrize(
    ("program", "runs"),
    [("python3", "/usr/bin/python3"), ("/bin/sh", "/bin/sh"), ("bin/up", f"{TREE}/bin/up")],
)
def test_a_program_is_the_releases_unless_it_is_absolute(program: str, runs: str) -> None:
    argv = migration.command("db", "kos", [program], TREE)
    assert argv[-1] == runs


def test_a_migration_that_fails_says_where_its_words_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "systemd-run"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KosError, match=r"bin/up ended with an error; `journalctl -t kos-migrate-db`"):
        migration.run("db", "kos", ["bin/up"], TREE)
