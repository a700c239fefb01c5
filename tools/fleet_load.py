"""The load of the demo's second act: writes numbered records to three stores of a node, and counts them.

Runs on the node, as root, with Python's standard library alone; the controller hands it over. `write` prints
a line of JSON for each record once its store has acknowledged it, so that whoever reads them knows what was
promised; `count` prints what is there.

usage: fleet_load.py write | count
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Protocol

ORDERS = Path("/srv/orders/orders.db")
LEDGER = Path("/var/lib/kairos/data/storage/blockchain.json")
TOKEN = Path("/etc/kairos/admin.token")
KAIROS = "http://127.0.0.1:8080/mcp"
PAUSE_S = 0.2
_MARK = "demo record "


class Store(Protocol):
    """Something that keeps numbered records."""

    def write(self, number: int) -> None:
        """Return once the record is acknowledged."""

    def numbers(self) -> list[int]:
        """Return the numbers of all records, in order."""


class Postgres:
    """A table in the cluster 17/main, through one psql that stays."""

    def __init__(self) -> None:
        words = ("psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")
        self._psql = subprocess.Popen(
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *words],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._ask("SET client_min_messages = error; CREATE TABLE IF NOT EXISTS record (n bigint PRIMARY KEY)")

    def write(self, number: int) -> None:
        self._ask(f"INSERT INTO record VALUES ({number})")

    def numbers(self) -> list[int]:
        return [int(line) for line in self._ask("SELECT n FROM record ORDER BY n")]

    def _ask(self, statement: str) -> list[str]:
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        self._psql.stdin.write(f"{statement};\n\\echo done\n")
        lines = list(itertools.takewhile(lambda line: line != "done\n", self._psql.stdout))
        if self._psql.poll() is not None:
            raise SystemExit("PostgreSQL went away")
        return [line.strip() for line in lines]


class Sqlite:
    """A table in a database in WAL mode, as an application has it open."""

    def __init__(self) -> None:
        ORDERS.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._database = sqlite3.connect(ORDERS, isolation_level=None, timeout=30)
        self._database.execute("PRAGMA journal_mode=wal")
        self._database.execute("CREATE TABLE IF NOT EXISTS record (n INTEGER PRIMARY KEY)")

    def write(self, number: int) -> None:
        self._database.execute("INSERT INTO record VALUES (?)", (number,))

    def numbers(self) -> list[int]:
        return [row[0] for row in self._database.execute("SELECT n FROM record ORDER BY n")]


class Ledger:
    """Blocks of the KairosChain node, recorded over HTTP with its admin token, counted in its file."""

    def write(self, number: int) -> None:
        call = {"name": "chain_record", "arguments": {"logs": [f"{_MARK}{number}"]}}
        request = urllib.request.Request(
            KAIROS,
            json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}).encode(),
            {"Authorization": f"Bearer {TOKEN.read_text().strip()}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = json.load(answer)
        if "result" not in said:
            raise SystemExit(f"the ledger did not take record {number}: {said}")

    def numbers(self) -> list[int]:
        texts = [text for block in json.loads(LEDGER.read_bytes()) for text in block["data"]]
        return [int(text.removeprefix(_MARK)) for text in texts if text.startswith(_MARK)]


def main() -> None:
    stores: dict[str, Store] = {"ledger": Ledger(), "postgres": Postgres(), "sqlite": Sqlite()}
    held = {name: store.numbers() for name, store in stores.items()}
    if sys.argv[1:] == ["count"]:
        print(json.dumps(held))
        return
    last = {name: numbers[-1] if numbers else 0 for name, numbers in held.items()}
    while True:
        for name, store in stores.items():
            last[name] += 1
            store.write(last[name])
            print(json.dumps({"store": name, "n": last[name], "time": time.time()}), flush=True)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
