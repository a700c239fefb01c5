# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the node bundle that role bootstrap installs: the collection's, or one named by path or address."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.urls import open_url

from ansible_collections.kos.fleet.plugins.plugin_utils import _whole_file

MAX_BYTES = 64 * 1024 * 1024
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")


class BundleError(ValueError):
    """There is no bundle, or it is not the one that was asked for; the message says which."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on the controller.

    Args:
        path: the archive.
        version: the folder it becomes below /opt/kos.
        sha256: of the archive, hex.
    """

    path: Path
    version: str
    sha256: str


def of_collection(files: Path) -> Bundle:
    """Return the bundle that `make collection` put into the role's files."""
    description = files / "kosctl.json"
    if not description.is_file():
        raise BundleError(
            f"{files} holds no bundle of kosctl: run `python tools/bundle.py` (make collection does), "
            "or name one in bootstrap_bundle"
        )
    said = json.loads(description.read_text(encoding="utf-8"))
    return _checked(Bundle(files / said["file"], said["version"], said["sha256"]))


def named(place: str, sha256: str | None, cache: Path) -> Bundle:
    """Return the bundle at a path or an address.

    Args:
        place: a path on the controller, or an http or https address.
        sha256: its digest, hex; an address needs one.
        cache: where a fetched one is kept.
    """
    if not place.startswith(("http://", "https://")):
        path = Path(place)
        if not path.is_file():
            raise BundleError(f"bootstrap_bundle names {place}, which is not there")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        return _checked(Bundle(path, _version_of(path), sha256 or found))
    if not sha256:
        raise BundleError(
            "bootstrap_bundle is an address: bootstrap_bundle_sha256 has to say what is to come"
        )
    path = cache / f"kosctl-{sha256}.tar.gz"
    if not path.is_file():
        data = open_url(place, timeout=60).read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES or hashlib.sha256(data).hexdigest() != sha256:
            raise BundleError(f"{place} gave other bytes than bootstrap_bundle_sha256 says")
        _whole_file.write(path, data)
    return _checked(Bundle(path, _version_of(path), sha256))


def _checked(bundle: Bundle) -> Bundle:
    if not bundle.path.is_file():
        raise BundleError(f"{bundle.path} is not there; run `python tools/bundle.py` again")
    found = hashlib.sha256(bundle.path.read_bytes()).hexdigest()
    if found != bundle.sha256:
        raise BundleError(f"{bundle.path} has the digest {found}, not {bundle.sha256}")
    if not _VERSION.fullmatch(bundle.version):
        raise BundleError(f"{bundle.path} calls itself {bundle.version!r}, which is no version")
    return bundle


def _version_of(path: Path) -> str:
    try:
        with tarfile.open(path, "r:gz") as archive:
            member = archive.extractfile("VERSION")
            if member is not None:
                return member.read(100).decode("ascii").strip()
    except (KeyError, EOFError, OSError, zlib.error, tarfile.TarError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not a bundle of kosctl: {error}") from None
    raise BundleError(f"{path} is not a bundle of kosctl: it has no VERSION")
