"""Checks a restored PostgreSQL cluster: checksums of pages, tables and indexes, the source's verifier."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import DamagedError, KosError
from . import pg_server
from .account import Account
from .pg_server import Connection
from .source import Finding

_LONG_S = 24 * 3600.0
_SHOWN = 20

# In a transaction that is rolled back: pg_amcheck would leave its extension in the data that goes live.
_AMCHECK = f"""
BEGIN READ WRITE;
CREATE TEMP TABLE kos_found (what text) ON COMMIT DROP;
DO $$
DECLARE
  place text := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                 WHERE e.extname = 'amcheck');
  one record;
BEGIN
  IF place IS NULL THEN
    CREATE SCHEMA kos_check;
    CREATE EXTENSION amcheck SCHEMA kos_check;
    place := 'kos_check';
  END IF;
  FOR one IN
    SELECT c.oid, c.oid::regclass::text AS name, c.relkind = 'i' AS is_index
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE c.relpersistence = 'p'
      AND ((c.relkind = 'i' AND a.amname = 'btree' AND i.indisvalid)
        OR (c.relkind IN ('r', 'm', 't') AND a.amname = 'heap'))
    ORDER BY c.oid
  LOOP
    BEGIN
      IF one.is_index THEN
        EXECUTE format('SELECT %I.bt_index_check($1, true)', place) USING one.oid::regclass;
      ELSE
        EXECUTE format('INSERT INTO kos_found SELECT format(''%%s: block %%s: %%s'', $2, blkno, msg)
                        FROM %I.verify_heapam($1) LIMIT {_SHOWN}', place) USING one.oid::regclass, one.name;
      END IF;
    EXCEPTION WHEN OTHERS THEN
      INSERT INTO kos_found VALUES (one.name || ': ' || SQLERRM);
    END;
  END LOOP;
END $$;
SELECT replace(what, E'\\n', ' ') FROM kos_found LIMIT {_SHOWN};
ROLLBACK;
"""


def ask(server: Connection, data: Path, verifier: Sequence[str], scratch: Path) -> list[Finding]:
    """Return what is wrong with a cluster that a server runs on.

    Args:
        server: on the restored data.
        data: its data directory.
        verifier: command of the source, run with `PGHOST`, `PGPORT` and read-only transactions.
        scratch: where the verifier may write.

    Raises:
        ServerError: the server does not answer.
    """
    databases = server.ask("SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'template0'")
    findings = [
        Finding("integrity", f"database {database}: {what}")
        for (database,) in databases
        for (what,) in server.ask(_AMCHECK, database=database)
    ]
    if verifier:
        findings += _verify(server, data, verifier, scratch)
    return findings


def checksums(version: str, data: Path, account: Account) -> list[Finding]:
    """Return the pages with wrong checksums of a cluster that was shut down; none where it has no checksums.

    Raises:
        DamagedError: it is no data directory, or was not shut down.
    """
    said = pg_server.control(version, data, account)
    if said["Database cluster state"] != "shut down":
        raise DamagedError(f"the restored cluster was not shut down: {said['Database cluster state']}")
    if said["Data page checksum version"] == "0":
        return []
    command = [str(pg_server.program(version, "pg_checksums")), "--check", str(data)]
    done = account.run(command, timeout_s=_LONG_S)
    lines = done.stderr.strip().splitlines() if done.returncode != 0 else []
    return [Finding("integrity", line.removeprefix("pg_checksums: ")) for line in lines[:_SHOWN]]


def _verify(server: Connection, data: Path, verifier: Sequence[str], scratch: Path) -> list[Finding]:
    work = scratch / "verifier"
    work.mkdir()
    os.chown(work, server.account.uid, server.account.gid)
    environment = {**server.environment, "PGOPTIONS": "-c default_transaction_read_only=on"}
    try:
        done = server.account.run(
            [*verifier, str(data)], timeout_s=_LONG_S, cwd=work, environment=environment
        )
    except KosError as error:
        return [Finding("verifier", error.message)]
    if done.returncode == 0:
        return []
    said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
    return [Finding("verifier", f"{verifier[0]} ended with {done.returncode}: {said[:200]}")]
