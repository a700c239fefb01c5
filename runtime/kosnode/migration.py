"""Runs the migration of a unit's state: as the unit's account, shut in, and with a time limit."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from .errors import KosError
from .render import PYTHON

TIMEOUT_S = 600

# It may write into the state of its unit and nowhere else (C18, S22).
_PROPERTIES = (
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateNetwork=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "RestrictSUIDSGID=yes",
    "StateDirectoryMode=0700",
    "UMask=0077",
)


def command(
    unit: str, user: str, argv: Sequence[str], directory: Path, timeout_s: int = TIMEOUT_S
) -> list[str]:
    """Return the call of systemd-run.

    The service is a oneshot, whose start is over when the command has ended: so no message bus is needed to
    wait for it. `fallback` stops it by its name.

    Args:
        unit: kOS name.
        user: account of the unit.
        argv: command; a relative program is one of the release's tree.
        directory: that tree.
        timeout_s: seconds that it may take.
    """
    program = argv[0]
    if program == "python3":
        program = PYTHON
    elif not program.startswith("/"):
        program = str(directory / program)
    properties = [
        *_PROPERTIES,
        f"StateDirectory=kos/state/{unit}",
        f"WorkingDirectory={directory}",
        f"TimeoutStartSec={timeout_s}",
        f"SyslogIdentifier=kos-migrate-{unit}",
    ]
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit=kos-migrate-{unit}",
        "--service-type=oneshot",
        f"--uid={user}",
        f"--setenv=KOS_UNIT={unit}",
        *(f"--property={one}" for one in properties),
        "--",
        program,
        *argv[1:],
    ]


def run(unit: str, user: str, argv: Sequence[str], directory: Path) -> None:
    """Run one migration; arguments as `command`.

    Raises:
        KosError: it failed or took too long; names where its words are.
    """
    where = f"`journalctl -t kos-migrate-{unit}` has its words"
    try:
        done = subprocess.run(
            command(unit, user, argv, directory),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S + 30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KosError(f"{argv[0]} did not end within {TIMEOUT_S} s; {where}") from None
    except OSError as error:
        raise KosError(f"systemd-run cannot be started: {error.strerror}") from None
    if done.returncode != 0:
        raise KosError(f"{argv[0]} ended with an error; {where}")
