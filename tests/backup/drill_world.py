"""A node with backups behind a real rest-server, and a host that drills them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backup.backup_node import RECOVERY, RUNTIME, BackupNode
from backup.servers import free_port, listening
from kosnode import schema

# The gate without its scrubbing of the environment, in which the programs of these tests would not be found.
_GATE = """
import sys
from pathlib import Path
from kosnode import operate, verbs
from kosnode.paths import NodePaths
context = verbs.Context(NodePaths(Path(sys.argv[1])))
print(operate.handle(context, sys.stdin.buffer.read()).json())
"""


@dataclass
class DrillWorld:
    """What a drill has to do with.

    Args:
        node: is drilled.
        host: runs the drills.
        url: of the repository, as the host reaches it.
    """

    node: BackupNode
    host: BackupNode
    url: str
    witness: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        return self.host.root / "var/lib/kos/drill"

    @property
    def temporary(self) -> Path:
        return self.host.root / "tmp"

    @property
    def reports(self) -> Path:
        return self.scratch / "reports"

    def request(self, **changes: Any) -> dict[str, Any]:
        """Return a request; a value of None takes a key away."""
        whole: dict[str, Any] = {
            "format": 1,
            "node": self.node.name,
            "repository": {"name": "main", "url": self.url, "environment": dict(self.environment)},
            "recovery_key": RECOVERY,
            "node_keys": [(self.node.etc / "keys/node.pub").read_text().strip()],
            "seed": "1",
            "table": self.node.table["sources"],
            **({} if self.witness is None else {"witness": {"url": self.witness.as_uri()}}),
            **changes,
        }
        return {key: value for key, value in whole.items() if value is not None}

    def drill(self, *, wrapper: str = "", **changes: Any) -> dict[str, Any]:
        """Drill, and return the answer; the report is held to its schema, and nothing may stay behind."""
        process = self.start(wrapper=wrapper, **changes)
        out, err = process.communicate()
        answer: dict[str, Any] = json.loads(out)
        answer["progress"] = err.decode()
        if answer["result"]:
            schema.check(answer["result"]["report"], "drill", where="the report")
        assert self.left() == [], answer
        return answer

    def let(self, **of_host: Any) -> None:
        """Write down on the host, as role backup does, that it drills the node."""
        whole = self.request()
        node: dict[str, Any] = {"repositories": {"main": {"url": self.url}}}
        node.update({name: whole[name] for name in ("node_keys", "table", "witness") if name in whole})
        self.host.etc.mkdir(parents=True, exist_ok=True)
        table = {"format": 1, "nodes": {self.node.name: node}, **of_host}
        (self.host.etc / "drill.json").write_text(json.dumps(table))

    def ask(self, **options: Any) -> dict[str, Any]:
        """Ask for a drill as the operator account does, and return the answer."""
        given = {
            "node": self.node.name,
            "repository": "main",
            "recovery_key": RECOVERY,
            "seed": "1",
            **options,
        }
        done = subprocess.run(
            [sys.executable, "-c", _GATE, str(self.host.root)],
            input=json.dumps({"format": 1, "verb": "drill", "options": given}).encode(),
            env={
                **os.environ,
                "PYTHONPATH": str(RUNTIME),
                "PATH": f"{self.host.programs}:{os.environ['PATH']}",
            },
            capture_output=True,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def start(self, *, wrapper: str = "", **changes: Any) -> subprocess.Popen[bytes]:
        """Start a drill."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        process = self.host.start("drill", wrapper=wrapper, TMPDIR=str(self.temporary))
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.request(**changes)).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def report(self, code: int = 0, **changes: Any) -> dict[str, Any]:
        """Drill with this exit code, and return the report."""
        answer = self.drill(**changes)
        assert answer["exit"] == code, (answer["exit"], answer["error"], answer["progress"])
        report: dict[str, Any] = answer["result"]["report"]
        assert report["outcome"] == {0: "VERIFIED", 10: "FAILED", 15: "COULD_NOT_TEST"}[code]
        return report

    def left(self) -> list[str]:
        """Return what drills left behind, besides their reports."""
        names = [one.name for one in self.scratch.iterdir()] if self.scratch.is_dir() else []
        sockets = self.host.root / "run/kos/drill"
        names += [one.name for one in self.temporary.iterdir()]
        return [name for name in names if name not in ("reports", "lock")] + [str(sockets)] * sockets.exists()


def texts(report: Mapping[str, Any], weight: str = "failed") -> list[str]:
    """Return the findings of a weight."""
    return [one["text"] for one in report["findings"] if one["weight"] == weight]


@contextmanager
def append_only_server(programs: Path, folder: Path) -> Iterator[str]:
    """Serve a folder with rest-server, append-only and to each user what is theirs; yields its address."""
    port = free_port()
    argv = [str(programs / "restic-rest-server"), "--path", str(folder), "--listen", f"127.0.0.1:{port}"]
    with listening([*argv, "--append-only", "--private-repos"], port) as server:
        yield server.url
