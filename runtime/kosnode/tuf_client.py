"""The node's TUF client behind the command line that the public suite tuf-conformance drives.

    python -m kosnode.tuf_client --metadata-dir D init ROOT
    python -m kosnode.tuf_client --metadata-dir D --metadata-url U refresh
    python -m kosnode.tuf_client --metadata-dir D --metadata-url U --target-name T
        --target-base-url B --target-dir X download

It is for tests: it works in D itself, without marks, and takes any repository. What it shares with the node
is python-tuf with our transport below it (updater.py, fetch.py).

Source: https://github.com/theupdateframework/tuf-conformance, CLIENT-CLI.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.ngclient import UpdaterConfig

from .errors import KosError, NotFoundError
from .fetch import HttpMirror, Limits
from .updater import MirrorFetcher, TimedUpdater


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line, without the program.

    Returns:
        0 when all of it worked, else 1.
    """
    parser = argparse.ArgumentParser(prog="tuf_client", description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    options = parser.parse_args(arguments)
    try:
        if options.command == "init":
            shutil.copyfile(options.root, options.metadata_dir / "root.json")
        else:
            _update(options)
    except (KosError, RepositoryError, DownloadError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _update(options: argparse.Namespace) -> None:
    fetcher = MirrorFetcher(HttpMirror(options.metadata_url, Limits()))
    pinned = (options.metadata_dir / "root.json").read_bytes()
    now = datetime.now(timezone.utc)
    updater = TimedUpdater(options.metadata_dir, "", fetcher, pinned, now, UpdaterConfig())
    updater.refresh()
    for name in options.target_name:
        target = updater.get_targetinfo(name)
        if target is None:
            raise NotFoundError(f"no target {name}")
        updater.target_dir = str(options.target_dir)
        if not updater.find_cached_target(target):
            fetcher.mirror = HttpMirror(options.target_base_url, Limits())
            updater.download_target(target, target_base_url="")


if __name__ == "__main__":
    sys.exit(main())
