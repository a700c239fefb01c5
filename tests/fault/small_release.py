"""A release of a few files whose unit keeps data in a format: small enough to be killed a thousand times.

Unit `keeper` keeps a ledger and runs only where the ledger has the format of its release, so that a release
which runs beside the wrong state is not healthy. From format 1 to 2 there is a migration, which on purpose is
not atomic. Unit `guest` is there from format 2 on only: after a revert it must not run.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from world import World
from world.world import HOLDERS, QUORUM

STATE = "/var/lib/kos/state/keeper"
BALLAST = 4 << 20
LEDGER = random.Random(20261121).randbytes(48 * 1024).hex()
PROGRAM, PLAIN = 0o755, 0o644

_KEEP = f"""#!/bin/sh
# Runs where the ledger has the format of this release, and makes one where there is none.
want=$(cat share/format)
if [ ! -e {STATE}/format ]; then
    cat share/ledger >{STATE}/ledger || exit 1
    echo "$want" >{STATE}/.format && mv {STATE}/.format {STATE}/format || exit 1
fi
[ "$(cat {STATE}/format)" = "$want" ] || exit 1
exec sleep infinity
"""
_CHECK = f"""#!/bin/sh
# Healthy is a ledger in the format of this release.
[ "$(cat {STATE}/format)" = "$(cat share/format)" ]
"""
_MIGRATE = f"""#!/bin/sh
# Takes the ledger from one format to the other, in steps that can be interrupted.
case $1 in
    up) echo migrated >>{STATE}/ledger && rm {STATE}/format && echo 2 >{STATE}/format ;;
    down) sed -i '$d' {STATE}/ledger && rm {STATE}/format && echo 1 >{STATE}/format ;;
esac
"""
_UNIT = {"version": "1.0.0", "tier": 2, "trust": "core", "resources": {"max": {"memory": "32M", "tasks": 8}}}


@dataclass(frozen=True)
class SmallRelease:
    """A release, and what a node that runs it must have.

    Attributes:
        root: its release root.
        format: of the ledger.
        units: systemd's names of its services.
        files: SHA-256 of each file of its tree that the publisher takes as it is, by path.
        count: files of its tree.
    """

    version: str
    root: str
    format: int
    units: tuple[str, ...]
    files: Mapping[str, str]
    count: int

    @property
    def ledger(self) -> str:
        """SHA-256 of the ledger that belongs to the format."""
        return _sha256(_ledger(self.format).encode())


def make(folder: Path) -> tuple[World, dict[str, SmallRelease]]:
    """Return a world in which the releases of this lane are published, made unless it is there.

    1.0.0, 1.0.1 and 1.1.0 (which migrates) are good, 1.2.0 is sick, and 2.0.0 is good and takes its time to
    fetch.
    """
    made_from = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    world = World(folder / f"world-fault-{made_from}")
    rows = world.publisher("list", str(world.repository))["releases"]
    published = {row["version"]: row["root"] for row in rows}
    releases = {}
    # The large one first, so that no patches are made against it.
    for version, form, sick, ballast in (
        ("2.0.0", 2, False, BALLAST),
        ("1.0.0", 1, False, 0),
        ("1.0.1", 1, False, 0),
        ("1.1.0", 2, False, 0),
        ("1.2.0", 1, True, 0),
    ):
        contents = _tree(version, form, sick, ballast)
        root = published.get(version) or _build(world, version, form, contents)
        files = {path: _sha256(data) for path, (data, _) in contents.items() if not path.startswith("units/")}
        units = ("kos-keeper.service", "kos-guest.service")[:form]
        releases[version] = SmallRelease(version, root, form, units, files, len(contents))
    if not releases.keys() <= published.keys():
        _sign_and_publish(world)
    return world, releases


def _build(world: World, version: str, form: int, contents: Mapping[str, tuple[bytes, int]]) -> str:
    tree = world.folder / "small" / version
    for path, (data, mode) in contents.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(mode)
    manifest: dict[str, Any] = {"name": "kos", "version": version}
    if form == 2:
        moves = {"up": ["bin/migrate", "up"], "down": ["bin/migrate", "down"]}
        manifest["migrations"] = [{"unit": "keeper", **moves}]
    release_file = world.folder / f"small/{version}.json"
    release_file.write_text(json.dumps(manifest))
    built = world.publisher(
        *("build", str(world.repository), "--tree", str(tree)),
        *("--release-file", str(release_file), "--channel", "stable"),
    )
    return str(built["root"])


def _sign_and_publish(world: World) -> None:
    repository = str(world.repository)
    for holder in HOLDERS[:QUORUM]:
        world.publisher(
            *("sign", repository, "--role", "releases", "--key", str(world.key(holder))),
            *("--passphrase-file", str(world.passphrase(holder))),
        )
    world.publisher("publish", repository, "--passphrase-file", str(world.passphrase("online")))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _ledger(form: int) -> str:
    return LEDGER + "\n" + "migrated\n" * (form - 1)


def _tree(version: str, form: int, sick: bool, ballast: int) -> dict[str, tuple[bytes, int]]:
    keeper = {
        "id": "keeper",
        **_UNIT,
        "entry": {"command": ["bin/keep"]},
        "health": [{"command": ["/bin/false"] if sick else ["bin/check"]}],
        "state": {"migrated": True},
    }
    contents = {
        "bin/keep": (_KEEP.encode(), PROGRAM),
        "bin/check": (_CHECK.encode(), PROGRAM),
        "bin/migrate": (_MIGRATE.encode(), PROGRAM),
        "share/format": (f"{form}\n".encode(), PLAIN),
        "share/ledger": (_ledger(form).encode(), PLAIN),
        "share/version": (version.encode(), PLAIN),
        "units/keeper/unit.yml": (json.dumps(keeper).encode(), PLAIN),
    }
    if form == 2:
        guest = {"id": "guest", **_UNIT, "entry": {"command": ["/bin/sleep", "infinity"]}}
        contents["units/guest/unit.yml"] = (json.dumps(guest).encode(), PLAIN)
    if ballast:
        contents["share/ballast"] = (random.Random(version).randbytes(ballast), PLAIN)
    return contents
