"""Checks a restored PostgreSQL cluster: checksums of pages, tables and indexes, the source's verifier."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import DamagedError, KosError
from . import pg_server
from .account import Account
from .config import SourceSpec
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


def check(
    version: str, data: Path, account: Account, spec: SourceSpec, *, run: Path, scratch: Path
) -> list[Finding]:
    """Return what is wrong with a restored cluster; of its data only the server's own records change.

    Args:
        version: of PostgreSQL.
        data: the data directory, of a server that was shut down.
        account: that owns it.
        spec: whose verifier is run, with `PGHOST` and `PGPORT` of a server on this data.
        run: for the socket of that server.
        scratch: where the verifier may write.
    """
    findings: list[Finding] = []
    read_only = [("default_transaction_read_only", "on")]
    try:
        findings += _checksums(version, data, account)
        with pg_server.private(version, data, account, run, read_only) as server:
            findings += _tables(server)
            findings += _verifier(server, data, spec, scratch)
    except (DamagedError, pg_server.ServerError) as error:
        findings.append(Finding("integrity", error.message))
    return findings


def _checksums(version: str, data: Path, account: Account) -> Iterator[Finding]:
    if pg_server.control(version, data, account)["Data page checksum version"] == "0":
        return
    done = account.run(
        [str(pg_server.program(version, "pg_checksums")), "--check", str(data)], timeout_s=_LONG_S
    )
    if done.returncode != 0:
        for line in done.stderr.strip().splitlines()[:_SHOWN]:
            yield Finding("integrity", line.removeprefix("pg_checksums: "))


def _tables(server: Connection) -> Iterator[Finding]:
    databases = server.ask("SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'template0'")
    for (database,) in databases:
        for (what,) in server.ask(_AMCHECK, database=database):
            yield Finding("integrity", f"database {database}: {what}")


def _verifier(server: Connection, data: Path, spec: SourceSpec, scratch: Path) -> Iterator[Finding]:
    if not spec.verifier:
        return
    account = Account.named(spec.owner, "owner") if spec.owner else server.account
    work = scratch / "verifier"
    work.mkdir()
    os.chown(work, account.uid, account.gid)
    try:
        done = account.run(
            [*spec.verifier, str(data)], timeout_s=_LONG_S, cwd=work, environment=server.environment
        )
    except KosError as error:
        yield Finding("verifier", error.message)
        return
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        yield Finding("verifier", f"{spec.verifier[0]} ended with {done.returncode}: {said[:200]}")
