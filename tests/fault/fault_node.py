"""A node of the fault lane: kosctl asked on it, faults brought about, and a look at it past kosctl.

What is below /var/lib/kos is kept beside it when the node is made, so that a reset is a copy of a few files
and a restart of two small services.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from subprocess import CompletedProcess
from typing import Any

from fault.small_release import STATE, SmallRelease

from bed import Bed
from bed.command import as_root

KOSCTL = "/opt/kos/current/bin/kosctl"
# The deadline of a trial is far away, so that a busy machine changes nothing: `deadline_passes` brings it.
POLICY = {
    "deadline_s": 600,
    "bake_s": 1,
    "health_interval_s": 1,
    "health_failures": 2,
    "settle_s": 5,
    "reserve_bytes": 1 << 20,
    "mirror_timeout_s": 4,
    "mirror_total_s": 120,
}
# For tests of the timer itself: as soon as the policy allows, and long enough to switch on a busy machine.
SOON_S = 20
# No working node needs that long, whatever else its machine does.
PATIENCE_S = 180.0

# Stops all of kOS and puts /var/lib/kos back to a kept copy.
_RESET = """
set -e
# What a killed kosctl has left running, such as a revert, comes to its end first.
exec 9>>/run/kos/lock
flock --timeout 150 9
# Status 5: a unit that was there when it was looked for has gone by itself.
systemctl stop kos.target 'kos-*.timer' 'kos-*.service' || [ $? -eq 5 ]
systemctl reset-failed 'kos-*' || [ $? -eq 5 ]
find /var/lib/kos -mindepth 1 -delete
cp -a "/root/kept/$1/." /var/lib/kos/
systemctl daemon-reload
systemctl start kos.target
"""

# Ends the waiting for a deadline: what the armed timer would start is started now.
_DEADLINE_PASSES = """
systemctl --quiet is-active kos-deadman.timer || exit 0
systemctl --no-block start kos-deadman.service || ! systemctl --quiet is-active kos-deadman.timer
"""

# Looks past kosctl: what is current, which slots are whole, what state there is, what runs.
_LOOK = f"""
cd /var/lib/kos
for link in current previous; do
    if [ -L $link ]; then echo "$link=$(basename "$(readlink $link)")"; else echo "$link="; fi
done
for file in trial outcome trial.confirmed; do [ ! -e $file ] || echo "left=$file"; done
grep -o '"root":"[0-9a-f]*"' refusals.json 2>/dev/null | cut -d '"' -f 4 | sed s/^/refused=/
for slot in releases/* releases/.[!.]*; do
    [ -e "$slot" ] || continue
    name=$(basename "$slot")
    if (cd "$slot/tree" && sha256sum --quiet --check --strict "/root/expected/$name.sums" \\
        && [ "$(find . -type f | wc -l)" = "$(cat "/root/expected/$name.count")" ]) >/dev/null 2>&1
    then echo "whole=$name"; else echo "broken=$name"; fi
done
echo "ledger=$(sha256sum <{STATE}/ledger | cut -d ' ' -f 1)"
echo "format=$(cat {STATE}/format)"
for unit in keeper guest; do
    if systemctl --quiet is-active kos-$unit.service; then echo "runs=kos-$unit.service"; fi
done
"""


_FLIP = """
import sys
from pathlib import Path
path, bit = Path(sys.argv[1]), int(sys.argv[2])
data = bytearray(path.read_bytes())
data[bit // 8 % len(data)] ^= 1 << bit % 8
with path.open("r+b") as file:
    file.write(data)
"""


@dataclass(frozen=True)
class Answer:
    """What kosctl answered: its exit code, its JSON, and what it told people."""

    exit: int
    json: Mapping[str, Any]
    told: str

    @property
    def result(self) -> Mapping[str, Any]:
        result = self.json["result"]
        assert isinstance(result, dict), self
        return result

    @property
    def message(self) -> str:
        """The one message of a failure."""
        error = self.json["error"]
        assert isinstance(error, dict), self
        return str(error["message"])


@dataclass(frozen=True)
class Look:
    """What a node looks like past kosctl: roots of links, slots and refusals, the ledger, services."""

    current: str
    previous: str
    whole: tuple[str, ...]
    broken: tuple[str, ...]
    left: tuple[str, ...]
    ledger: str
    format: str
    runs: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass
class FaultNode:
    """A node of the lane.

    Attributes:
        name: of the machine.
        bed: that it belongs to.
        releases: what is published, by version.
        kept: names of the copies of /var/lib/kos that are there.
    """

    name: str
    bed: Bed
    releases: Mapping[str, SmallRelease]
    kept: set[str] = field(default_factory=set)

    def sh(
        self, script: str, *arguments: str, check: bool = True, stdin: bytes | None = None
    ) -> CompletedProcess[str]:
        """Run a script of sh as root."""
        return self.bed.exec(self.name, ["sh", "-c", script, "sh", *arguments], check=check, stdin=stdin)

    def run(self, *argv: str, check: bool = False, stdin: bytes | None = None) -> CompletedProcess[str]:
        """Run a command as root."""
        return self.bed.exec(self.name, argv, check=check, stdin=stdin, timeout=PATIENCE_S)

    def kosctl(self, *words: str, before: Sequence[str] = (), stdin: bytes | None = None) -> Answer:
        """Run kosctl with --json; `before` is put before it, as strace or faketime want it."""
        done = self.run(*before, KOSCTL, *words, "--json", stdin=stdin)
        return _answer(done.returncode, done.stdout, done.stderr)

    def must(self, *words: str) -> Answer:
        """Run kosctl and expect that it does what it was asked."""
        answer = self.kosctl(*words)
        assert answer.exit == 0, f"{self.name}: kosctl {' '.join(words)}: {answer}"
        return answer

    def status(self) -> Mapping[str, Any]:
        return self.must("status").result

    def look(self) -> Look:
        """Look at the node past kosctl."""
        found: dict[str, list[str]] = {}
        for line in self.sh(_LOOK, check=False).stdout.splitlines():
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
        many = {key: tuple(found.get(key, ())) for key in ("whole", "broken", "left", "runs", "refused")}
        one = {key: found[key][0] for key in ("current", "previous", "ledger", "format")}
        return Look(**one, **many)  # type: ignore[arg-type]  # keys of the one and of the many are apart

    def well(self, look: Look) -> str | None:
        """Return the version that the node runs well, or None: whole slot, its state, its units."""
        for release in self.releases.values():
            state = (look.ledger, look.format) == (release.ledger, str(release.format))
            if look.current == release.root and release.root in look.whole and state:
                return release.version if set(look.runs) == set(release.units) else None
        return None

    def wait_well(self, since: float, left: tuple[str, ...] = ()) -> tuple[str, float]:
        """Wait until the node runs a release well and no trial is left; return its version and the seconds.

        Args:
            since: time.monotonic() of what went wrong.
            left: files of a trial that may stay until kosctl can take them away.
        """
        while True:
            look = self.look()
            version = self.well(look)
            if version is not None and set(look.left) <= set(left):
                assert not look.refused, f"{self.name} refuses a release that was not unhealthy: {look}"
                return version, time.monotonic() - since
            assert time.monotonic() - since < PATIENCE_S, f"{self.name} does not get well: {look}"
            time.sleep(0.4)

    def assert_good(self) -> None:
        """Hold the node to what kosctl says: healthy, whole, nothing refused, nothing left to finish."""
        self.must("recover")
        self.must("health")
        self.must("verify")
        status = self.status()
        assert (status["refused"], status["trial"]) == ([], None), status

    def wait(self, true: Callable[[], bool], what: str) -> None:
        """Wait for something, up to a time that no working node needs."""
        end = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < end, f"{self.name}: not so after {PATIENCE_S:.0f} s: {what}"
            time.sleep(0.4)

    def has(self, path: str) -> bool:
        return self.run("test", "-e", path).returncode == 0

    def activate(self, version: str, deadline_s: int = POLICY["deadline_s"]) -> Answer:
        """Begin a trial."""
        return self.must("activate", version, "--deadline-s", str(deadline_s))

    def deadline_passes(self) -> None:
        """Have the deadline of a trial be over, where there is one: systemd runs the dead-man now."""
        self.sh(_DEADLINE_PASSES)

    def confirm(self, token: str, before: Sequence[str] = ()) -> Answer:
        """Confirm as a controller does: over a new session each time, until the bake is over."""
        end = time.monotonic() + PATIENCE_S
        while True:
            answer = self.kosctl("confirm", "--token-file", "-", before=before, stdin=token.encode())
            if answer.exit not in (3, 11) or time.monotonic() > end:
                return answer
            if answer.json["error"].get("key") not in (None, "bake_s"):
                return answer
            time.sleep(0.3)

    def keep(self, name: str) -> None:
        """Keep what is below /var/lib/kos under a name for `reset`; no trial may be running."""
        self.sh('rm -rf "/root/kept/$1" && mkdir -p /root/kept && cp -a /var/lib/kos "/root/kept/$1"', name)
        self.kept.add(name)

    def reset(self, name: str = "installed") -> None:
        """Put the node back to a kept state, and start what belongs to it."""
        self.sh(_RESET, name)

    def prepared(self, name: str, prepare: Callable[[], object]) -> None:
        """Reset to a kept state, which is made from a fresh installation where it is not there yet."""
        if name not in self.kept:
            self.reset()
            prepare()
            self.keep(name)
        self.reset(name)

    def staged(self, version: str = "1.1.0") -> None:
        """Reset to 1.0.0 with another release staged beside it."""
        self.prepared(f"staged-{version}", lambda: self.must("stage", version))

    def patched(self, version: str = "1.1.0") -> None:
        """Reset to another release confirmed, with 1.0.0 before it."""
        self.prepared(f"patched-{version}", lambda: self._patch(version))

    def _patch(self, version: str) -> None:
        self.must("stage", version)
        done = self.confirm(str(self.activate(version).result["token"]))
        assert done.exit == 0, done

    def journal(self) -> list[dict[str, Any]]:
        """Return the entries of the journal."""
        text = self.run("cat", "/var/lib/kos/journal/journal.jsonl", check=True).stdout
        return [json.loads(line) for line in text.splitlines()]

    def flip(self, version: str, path: str, bit: int = 0) -> None:
        """Flip one bit of a file in a slot, past its mode; bits are counted round the file."""
        self.sh(
            "exec python3 - \"$@\" <<'END'\n" + _FLIP + "END\n",
            f"/var/lib/kos/releases/{self.releases[version].root}/tree/{path}",
            str(bit),
        )

    def begin(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a command as root and do not wait for it."""
        command = as_root([*self.bed.exec_command(self.name), *argv])
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end(self, process: subprocess.Popen[bytes]) -> Answer:
        """Wait for a kosctl that was begun, and return its answer."""
        out, err = process.communicate(timeout=PATIENCE_S)
        return _answer(process.returncode, out.decode(), err.decode())

    def operate(self, verb: str, **options: object) -> Answer:
        """Ask over SSH, as the operator account that patches a fleet."""
        request = {"format": 1, "verb": verb, "options": options}
        ssh, *rest = self.bed.ssh_command(self.name, user="kosops")
        command = [ssh, "-o", "ConnectTimeout=2", "-o", "BatchMode=yes", *rest, f"sudo {KOSCTL} operate"]
        done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, check=False)
        return _answer(done.returncode, done.stdout.decode(), done.stderr.decode())

    def fill_disk(self, leave: int = 0) -> None:
        """Fill the disk of /var/lib/kos until that many bytes are free."""
        free = self.free_bytes() - leave
        if free > 0:
            self.run("fallocate", "--length", str(free), "/var/lib/kos/filler", check=True)

    def free_disk(self) -> None:
        self.sh("rm -f /var/lib/kos/filler")

    def free_bytes(self) -> int:
        blocks, size = self.sh("stat --file-system --format='%a %S' /var/lib/kos").stdout.split()
        return int(blocks) * int(size)

    def set_mirrors(self, *urls: str) -> None:
        """Have the node ask these mirrors, until the next `set_mirrors`."""
        self.sh(
            'exec python3 -c \'import json, sys; p = "/etc/kos/node.json"; d = json.load(open(p)); '
            'd["mirrors"] = sys.argv[1:]; open(p, "w").write(json.dumps(d))\' "$@"',
            *urls,
        )


def _answer(code: int, out: str, told: str) -> Answer:
    try:
        answer = json.loads(out)
    except ValueError:
        answer = {"ok": False, "result": {}, "error": {"message": out + told, "key": None}}
    return Answer(code, answer, told)
