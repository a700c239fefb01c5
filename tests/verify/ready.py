"""Makes what scenarios need: node bundle, releases, machines that are as new; and takes the machines away.

    python -m verify.ready [--down]

A bed that is there is used again if every machine of it is up and as it was when it was new.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from bed import Bed, BedError

from . import lane, snapshot


def main(arguments: list[str] | None = None) -> int:
    """Make it so; return 0, or 1 with one message."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--down", action="store_true", help="remove the machines")
    options = parser.parse_args(arguments)
    bed = Bed(lane.BED, _say)
    if options.down:
        bed.down()
        lane.AS_NEW.unlink(missing_ok=True)
        return 0
    lane.FOLDER.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([sys.executable, "tools/bundle.py"], cwd=lane.REPOSITORY, check=False)
    if made.returncode != 0:
        return 1
    lane.publish(_say)
    try:
        _machines(bed)
    except BedError as error:
        print(f"ready: {error}", file=sys.stderr)
        return 1
    lane.RUNS.unlink(missing_ok=True)
    shutil.rmtree(lane.CONTROLLER, ignore_errors=True)
    lane.CONTROLLER.mkdir()
    return 0


def _machines(bed: Bed) -> None:
    wanted = list(lane.PLAN.zone_of())
    why = _not_as_new(bed, wanted)
    if not why:
        _say(f"bed {lane.BED}: {len(wanted)} machines are as new")
        return
    _say(f"bed {lane.BED} is made anew: {why}")
    bed.up(lane.PLAN)
    key = lane.INVENTORY / ".ssh/id_ed25519"
    public = subprocess.run(["ssh-keygen", "-y", "-f", str(key)], capture_output=True, text=True, check=True)
    key.with_suffix(".pub").write_text(public.stdout)
    _write(lane.AS_NEW, snapshot.take(bed, wanted))


def _not_as_new(bed: Bed, wanted: list[str]) -> str:
    """Say why the machines that are there cannot be used; empty where they can."""
    nodes = {node.name: node for node in bed.nodes()}
    if sorted(nodes) != sorted(wanted) or not lane.AS_NEW.is_file():
        return f"it has {', '.join(nodes) or 'no machines'}"
    for node in nodes.values():
        if node.state != "running":
            return f"{node.name} is {node.state}"
        suite = lane.PLAN.suites.get(node.name, lane.PLAN.suite)
        if node.suite != suite:
            return f"{node.name} has {node.suite}"
    if cut := bed.cuts():
        return f"links are cut: {[sorted(pair) for pair in cut]}"
    told = snapshot.differences(lane.as_new(), snapshot.take(bed, wanted))
    return "; ".join(told[:5])


def _write(path: Path, value: object) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
