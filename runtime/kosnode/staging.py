"""From what a person names to a slot: which release is meant, whether it may come, and its units rendered."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import admission, disk, fetch, files, render, running, trial, unit, version
from .admission import Release, Wish
from .config import Config
from .errors import DamagedError, InputError, NotFoundError, RefusedError, TrustError
from .manifest import Manifest
from .node import Node
from .slot import Slots
from .transfer import Received, Staged, Transfer
from .trust import Available, Refreshed, Trust

PREVIOUS = "previous"

_PREFIX = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class Planned:
    """What `plan` answers, and whether anything is to be done."""

    result: dict[str, Any]
    changed: bool


class Staging:
    """Staging of releases on one node. The caller holds the node's lock.

    Args:
        node: the state machine's node.
        config: names line, channel, mirrors and overrides of units.
        slots: of the node.
        trust: of the node; None makes it from the configuration.
    """

    def __init__(self, node: Node, config: Config, slots: Slots, trust: Trust | None = None) -> None:
        self._node = node
        self._config = config
        self._slots = slots
        limits = fetch.Limits(timeout_s=config.policy.mirror_timeout_s, total_s=config.policy.mirror_total_s)
        self._mirrors = fetch.mirrors(config.mirrors, limits, ca=config.authorities(node.paths))
        self._trust = trust or Trust(node.paths, self._mirrors, node.clock)

    def stage(self, ref: str | None, wish: Wish) -> Staged:
        """Bring a release onto the node.

        Args:
            ref: a version, a root, `previous`, or None for the newest in the channel.

        Raises:
            RefusedError: by policy, before anything of it is fetched where that can be known.
            NotFoundError, InputError, TrustError, MirrorError, DiskError, DamagedError: as they say.
        """
        there = self._local(ref) or self._in_slot(ref, wish)
        if there is not None:
            staged = self._present(there)
            self._write_down(staged, new=False)
            return staged
        release, refreshed = self._find(ref)
        transfer = self._transfer(release, refreshed)
        manifest = transfer.manifest()
        self._admit(release, manifest, wish)
        new = not self._node.paths.slot(release.root).is_dir()
        staged = transfer.stage(
            reserve=self._config.policy.reserve_bytes,
            extra=lambda directory: render_units(self._node, self._config, directory, manifest),
        )
        self._write_down(staged, new=new)
        return staged

    def plan(self, ref: str | None, wish: Wish) -> Planned:
        """Say what staging and switching to a release would do, and refuse what they would refuse."""
        there = self._local(ref) or self._in_slot(ref, wish)
        if there is not None:
            return self._plan_present(there, self._present(there).as_json(), wish)
        release, refreshed = self._find(ref)
        transfer = self._transfer(release, refreshed)
        manifest = transfer.manifest()
        if self._node.paths.slot(release.root).is_dir():
            staged = transfer.stage()
            return self._plan_present(release.root, staged.as_json(), wish)
        current = self._admit(release, manifest, wish)
        estimate = transfer.estimate()
        self._slots.check_disk(manifest, self._config.policy.reserve_bytes, fetch=estimate.bytes.archive)
        services = [f"kos-{name}.service" for name in manifest.units]
        known = {} if current is None else self._node.units(current.root)["units"]
        gone = [str(entry["service"]) for name, entry in sorted(known.items()) if name not in manifest.units]
        wanted = Release(release.root, release.name, release.version, manifest.document)
        total = estimate.bytes.as_json()["total"]
        steps = [
            f"fetch {wanted.name} {wanted.version} ({estimate.how}, {total} bytes)",
            *(f"keep a copy of the state of {one['unit']}" for one in wanted.migrations),
            f"switch to {wanted.name} {wanted.version} ({wanted.root[:12]}) on trial",
            *(f"stop {name}" for name in gone),
            *(f"migrate the state of {one['unit']}" for one in wanted.migrations),
            *(f"restart {name} where it changed" for name in services),
        ]
        result = {
            "root": wanted.root,
            "name": wanted.name,
            "version": wanted.version,
            "bytes": estimate.bytes.as_json(),
            "how": estimate.how,
            "mirror": refreshed.mirror,
            "mirrors": list(refreshed.errors),
            "slot": None,
            "steps": steps,
            "restart": services,
            "stop": gone,
            "breaking": list(wanted.breaking),
            "sync_risk": wanted.sync_risk,
            "disk": {"needed": estimate.needed, "free": estimate.free},
            "downgrade": admission.is_downgrade(current, wanted),
        }
        return Planned(result, changed=True)

    def find_staged(self, ref: str | None) -> str:
        """Return the root of a staged release that a person names; no mirror is asked.

        Raises:
            NotFoundError: it has no slot; InputError: it names several, or is no name of a release.
            RefusedError: it lies below the signed security floor, and is not `previous`.
        """
        there = self._local(ref)
        if there is not None:
            return there
        if ref is None:
            newest = self._newest()
            if not self._node.paths.slot(newest.root).is_dir():
                raise NotFoundError(
                    f"{newest.name} {newest.version}, the newest of the channel, is not staged", key="release"
                )
            return newest.root
        found = match(ref, [self._node.release(root) for root in self._slots.list()])
        floor = self._trust.security_floor(found.name)
        below = floor is not None and version.key(found.version) < version.key(floor)
        if below and found.root != self._node.linked(self._node.paths.previous):
            raise RefusedError(
                f"release {found.name} {found.version} is below the signed security floor {floor}",
                key="release",
            )
        return found.root

    def manifest_of(self, root: str) -> Manifest | None:
        """Return the manifest of a release as it is signed; None where it is not signed for this node."""
        self._trust.refresh()
        for release in self._trust.releases():
            if release.root == root:
                return self._transfer_anew(release).signed_manifest()
        return None

    def mirrors(self) -> list[fetch.Mirror]:
        """Return the mirrors, in order."""
        return self._mirrors

    def _local(self, ref: str | None) -> str | None:
        if ref != PREVIOUS:
            return None
        root = self._node.linked(self._node.paths.previous)
        if root is None:
            raise NotFoundError("there is no release before this one on the node", key="release")
        return root

    def _in_slot(self, ref: str | None, wish: Wish) -> str | None:
        """Return the root of a release that a person names and that has a slot; no mirror is asked.

        It must be in the channel and not below the floor by the metadata believed last, or be `previous`.

        Raises:
            RefusedError: by policy; InputError: `ref` is no name of a release, or names several.
        """
        if ref is None:
            return None
        config, node = self._config, self._node
        previous = self._local(PREVIOUS) if self._names_previous(ref) else None
        try:
            root = (
                previous or self._trust.resolve(ref, config.release, config.channel, platform.machine()).root
            )
        except (NotFoundError, RefusedError, TrustError):
            # What is believed here may be behind: mirrors are asked.
            return None
        if not node.paths.slot(root).is_dir():
            return None
        current, wanted = node.current(), node.release(root)
        if current is None or current.root != root:
            admission.check_named(current, wanted, wish, line=node.line, refusals=node.refusals)
            admission.check_manifest(current, wanted, wish, node.host())
        return root

    def _names_previous(self, ref: str) -> bool:
        root = self._node.linked(self._node.paths.previous)
        if root is None:
            return False
        try:
            return match(ref, [self._node.release(root)]).root == root
        except (NotFoundError, DamagedError):
            return False

    def _find(self, ref: str | None) -> tuple[Available, Refreshed]:
        refreshed = self._trust.refresh()
        if ref is None:
            return self._newest(), refreshed
        config = self._config
        return self._trust.resolve(ref, config.release, config.channel, platform.machine()), refreshed

    def _newest(self) -> Available:
        line, channel, arch = self._config.release, self._config.channel, platform.machine()
        fitting = [
            one for one in self._trust.releases(line) if channel in one.channels and one.arch in ("any", arch)
        ]
        if not fitting:
            raise NotFoundError(f"channel {channel} has no release of {line} for {arch}", key="release")
        return max(fitting, key=lambda one: (version.key(one.version), one.arch == arch))

    def _transfer(self, release: Available, refreshed: Refreshed) -> Transfer:
        return Transfer(
            release,
            self._slots,
            self._mirrors,
            refreshed=refreshed,
            patches=self._config.policy.patches,
            progress=self._node.progress,
        )

    def _transfer_anew(self, release: Available) -> Transfer:
        return Transfer(release, self._slots, self._mirrors, patches=False, progress=self._node.progress)

    def _admit(self, release: Available, manifest: Manifest, wish: Wish) -> Release | None:
        node, current = self._node, self._node.current()
        wanted = Release(release.root, release.name, release.version, manifest.document)
        if current is not None and current.root == wanted.root:
            return current
        admission.check_named(current, wanted, wish, line=node.line, refusals=node.refusals)
        admission.check_manifest(current, wanted, wish, node.host())
        return current

    def _write_down(self, staged: Staged, *, new: bool) -> None:
        """Write FETCHED and VERIFIED, or what a kill just after the slot was made has left out of them."""
        journal, manifest = self._node.journal, staged.manifest
        about = {"release": manifest.root, "name": manifest.name, "version": manifest.version}
        told = {one["state"] for one in journal.entries() if one.get("release") == manifest.root}
        if new:
            received = staged.bytes.as_json()["total"]
            journal.append("FETCHED", **about, bytes=received, how=staged.how, mirror=staged.mirror)
        elif "FETCHED" not in told:
            journal.append("FETCHED", **about, how=staged.how)
        if new or "VERIFIED" not in told:
            journal.append("VERIFIED", **about)

    def _present(self, root: str) -> Staged:
        manifest = self._slots.manifest(root)
        nothing = Received(0, 0, 0)
        return Staged(manifest, "present", nothing, "", (), 0.0, self._node.paths.slot(root))

    def _plan_present(self, root: str, staged: dict[str, Any], wish: Wish) -> Planned:
        told = trial.plan(self._node, root, wish)
        result = {**staged, **{key: value for key, value in asdict(told).items() if key != "how"}}
        return Planned(result, changed=told.how != "present")


def render_units(node: Node, config: Config, directory: Path, manifest: Manifest) -> None:
    """Render the units of a release into its slot, which may have another name still.

    Args:
        directory: of the slot that is built.
        manifest: of the release.
    """
    paths = [directory / "tree/units" / name / "unit.json" for name in manifest.units]
    units = [unit.validate(files.read_json(path), str(path)) for path in paths]
    own = node.paths.node_units / "units.json"
    taken: Iterable[str] = running.read_units(own)["units"] if own.exists() else ()
    rendered = render.render(
        units, node.paths.slot(manifest.root), manifest.hash_of, config.units, taken=list(taken)
    )
    disk.make_directory(directory / "units")
    for name, data in {**rendered.files, "units.json": files.canonical(rendered.units_json)}.items():
        disk.write(directory / name, [data], 0o444)


def match(ref: str, releases: Iterable[Release]) -> Release:
    """Find the release that a version, a root or 12 or more digits of one name.

    Raises:
        InputError: no name of a release, or of several; NotFoundError: none of these.
    """
    by_root = _PREFIX.fullmatch(ref) is not None
    if not by_root:
        version.key(ref)
    found = [one for one in releases if (one.root.startswith(ref) if by_root else one.version == ref)]
    if not found:
        raise NotFoundError(f"release {ref} is not staged on this node", key="release")
    if len(found) > 1:
        roots = ", ".join(one.root[:16] for one in found)
        raise InputError(f"{ref} names several releases: {roots}; name one by its root", key="release")
    return found[0]
