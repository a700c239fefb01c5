"""The command `kosd`: takes no arguments, everything is in the environment and the configuration.

KOSD_CONFIG names the configuration, else KOS_UNIT_CONFIG, which the engine sets for each unit.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from kosd import config, documents, logs, notify
from kosd.daemon import Daemon
from kosd.server import serve

DEFAULT_STATE = Path("/var/lib/kos/state/kosd")
# sysexits(3): systemd and a person both read 78 as "look at the configuration".
EX_USAGE, EX_CONFIG = 64, 78


def main(tree: Path) -> int:
    """Runs the daemon of the release whose tree is given; returns the exit code."""
    if sys.argv[1:]:
        print("kosd takes no arguments; see KOSD_CONFIG and docs/reference/kosd.md", file=sys.stderr)
        return EX_USAGE
    notifier = notify.take_environment()
    path = Path(os.environ.get("KOSD_CONFIG") or os.environ.get("KOS_UNIT_CONFIG") or config.DEFAULT_PATH)
    # systemd may name several state directories; ours is the first.
    state = Path(os.environ.get("STATE_DIRECTORY", "").split(":")[0] or DEFAULT_STATE)
    try:
        daemon = Daemon.start(tree, path, state, notifier)
    except documents.DocumentError as error:
        logs.set_up("info", dict)
        logging.getLogger("kosd").critical(str(error), extra={"event": "config.refused"})
        notifier.status(str(error))
        return EX_CONFIG
    logs.set_up(daemon.loaded.config.log_level, daemon.log_context)
    return serve(daemon)
