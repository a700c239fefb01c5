"""Whether a release may come onto a node: refusals, downgrades, predecessors, compatibility and risk."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import version
from .errors import RefusedError
from .refusals import Refusals


@dataclass(frozen=True)
class Release:
    """A release as the rules of admission see it.

    Args:
        manifest: what release.json says; empty where only signed metadata are known yet.
    """

    root: str
    name: str
    version: str
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def breaking(self) -> tuple[str, ...]:
        return tuple(str(one) for one in self.manifest.get("breaking", ()))

    @property
    def sync_risk(self) -> str:
        return str(self.manifest.get("sync_risk", "none"))

    @property
    def migrations(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(self.manifest.get("migrations", ()))


@dataclass(frozen=True)
class Wish:
    """What the caller says beside the name of a release.

    Args:
        allow_downgrade: the word for a release that is lower than the current one.
        accept_risk: the word for a release that breaks something or is risky.
        last_good: the release is the local `previous`, to which a person may always go back.
    """

    allow_downgrade: bool = False
    accept_risk: bool = False
    last_good: bool = False


@dataclass(frozen=True)
class Host:
    """What releases may ask of a host: its names (`debian`, `debian-13`), versions of python and systemd."""

    names: tuple[str, ...]
    versions: Mapping[str, str]


def is_downgrade(current: Release | None, wanted: Release) -> bool:
    """Say whether a release of the same line is lower than the one that is current."""
    if current is None or current.name != wanted.name:
        return False
    return version.key(wanted.version) < version.key(current.version)


def check_named(
    current: Release | None, wanted: Release, wish: Wish, *, line: str, refusals: Refusals
) -> None:
    """Check what is known before a manifest is there: line, refusal, downgrade.

    Args:
        line: the release line that the node's configuration names.

    Raises:
        RefusedError: names the release and the word that would allow it, if there is one.
    """
    if wanted.name != line:
        raise RefusedError(
            f"release {wanted.name} {wanted.version} is not of this node's line {line}", key="release"
        )
    refusals.check(wanted.root)
    if is_downgrade(current, wanted) and not (wish.allow_downgrade or wish.last_good):
        assert current is not None, "a downgrade has a release to go down from"
        raise RefusedError(
            f"{wanted.name} {wanted.version} is lower than {current.version}, which is current; "
            "a downgrade needs --allow-downgrade",
            key="allow_downgrade",
        )


def check_manifest(current: Release | None, wanted: Release, wish: Wish, host: Host) -> None:
    """Check what the manifest says: predecessors, barriers, compatibility, ways down, risk.

    Going back to the last good release skips all but the way down: it ran here before.

    Raises:
        RefusedError: names the rule.
    """
    if is_downgrade(current, wanted):
        assert current is not None, "a downgrade has a release to go down from"
        for migration in current.migrations:
            if not migration.get("down"):
                raise RefusedError(
                    f"{current.name} {current.version} migrated the state of {migration['unit']} "
                    "and has no way down",
                    key="migrations",
                )
    elif current is not None:
        _check_from(current, wanted)
    if wish.last_good:
        return
    _check_compat(wanted, host)
    if not wish.accept_risk and (wanted.breaking or wanted.sync_risk == "high"):
        what = "; ".join(wanted.breaking) or "its sync_risk is high"
        raise RefusedError(
            f"{wanted.name} {wanted.version} needs --accept-risk: {what}",
            key="accept_risk",
            detail={"breaking": list(wanted.breaking), "sync_risk": wanted.sync_risk},
        )


def host_facts(run: Callable[[list[str]], str] | None = None) -> Host:
    """Return what this host is."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    versions = {"python": platform.python_version()}
    said = (run or _first_line)(["systemctl", "--version"])
    found = re.match(r"systemd (\d+)", said)
    if found:
        versions["systemd"] = found.group(1)
    name = release.get("ID", "unknown")
    return Host((name, f"{name}-{release['VERSION_ID']}") if "VERSION_ID" in release else (name,), versions)


def _check_from(current: Release, wanted: Release) -> None:
    rules = wanted.manifest.get("from", {})
    allowed = rules.get("allow")
    if allowed is not None and not any(version.matches(current.version, one) for one in allowed):
        raise RefusedError(
            f"{wanted.name} {wanted.version} installs over {', '.join(allowed)}, not over {current.version}",
            key="from",
        )
    for barrier in rules.get("barriers", ()):
        if version.key(current.version) < version.key(barrier) < version.key(wanted.version):
            raise RefusedError(
                f"{wanted.name} {wanted.version} cannot skip {barrier}: install that first",
                key="from",
            )


def _check_compat(wanted: Release, host: Host) -> None:
    rules = wanted.manifest.get("compat", {})
    systems = rules.get("os")
    if systems is not None and not set(systems) & set(host.names):
        raise RefusedError(
            f"{wanted.name} {wanted.version} is for {', '.join(systems)}; this is {host.names[-1]}",
            key="compat.os",
        )
    for what, least in rules.get("needs", {}).items():
        has = host.versions.get(what)
        if has is None or _numbers(has) < _numbers(least):
            raise RefusedError(
                f"{wanted.name} {wanted.version} needs {what} {least}; this node has {has or 'none'}",
                key=f"compat.needs.{what}",
            )
    for program in rules.get("conflicts", ()):
        if shutil.which(program):
            raise RefusedError(
                f"{wanted.name} {wanted.version} does not go together with {program}, which is here",
                key="compat.conflicts",
            )


def _numbers(text: str) -> list[int]:
    """Return a dotted number as one that compares: `3.10.0` is `3.10`."""
    numbers = [int(part) for part in re.findall(r"\d+", text)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


def _first_line(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").partition("\n")[0]
