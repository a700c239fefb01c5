"""Says in plain words what is wrong with a node and what helps; packs one redacted archive for support."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from . import boot, deadman, evidence, files, health, record, recovery
from .config import Config
from .errors import InputError, KosError

if TYPE_CHECKING:
    from .trust import Trust
    from .verbs import Context

# Beyond this the clock and the newest signed time are told apart as wrong rather than as old metadata.
FAR = timedelta(days=400)
ROOT_SOON = timedelta(days=30)
# Of the time between issue and expiry, this part has to be left.
TIMESTAMP_LEFT = 0.25
MAX_BUNDLE_FILE = 256 * 1024

_ORDER = {"error": 0, "warning": 1, "hint": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        id: stable name, for scripts.
        severity: `error`, `warning` or `hint`.
        text: what is wrong, for a person.
        fix: what helps.
    """

    id: str
    severity: str
    text: str
    fix: str


Check = Callable[["Context"], Iterator[Finding]]


def examine(context: Context) -> list[Finding]:
    """Run every check; one that cannot be run is a finding itself.

    Returns:
        What is wrong, the worst first; nothing where nothing is.
    """
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(context)
        except Exception as error:
            what = (check.__doc__ or check.__name__).rstrip(".")
            found.append(
                Finding("check-failed", "warning", f"{what}: could not be checked: {error}", "see the text")
            )
    return sorted(found, key=lambda one: (_ORDER[one.severity], one.id, one.text))


def check_configuration(context: Context) -> Iterator[Finding]:
    """The configuration can be read."""
    try:
        _ = context.config
    except InputError as error:
        yield Finding("configuration", "error", error.message, "correct it, or run the playbook `site` again")


def check_disk(context: Context) -> Iterator[Finding]:
    """There is room on the disk."""
    reserve = context.any_node.policy.reserve_bytes
    free = shutil.disk_usage(_existing(context.paths.var)).free
    if free < reserve:
        text = f"{free} bytes are free where releases are kept, {reserve} should be"
        yield Finding("disk-low", "error", text, "run `kosctl gc`, or free room on the disk")


def check_clock(context: Context) -> Iterator[Finding]:
    """The clock fits the newest signed time."""
    floor = _trust(context).time_floor()
    now = context.clock.now()
    if floor is None:
        return
    if now < floor:
        text = f"the clock says {boot.text(now)}, and the newest signed time is {boot.text(floor)}"
        yield Finding("clock-behind", "warning", text, "set the clock, or let time synchronisation run")
    elif now - floor > FAR:
        text = f"the clock says {boot.text(now)}, {(now - floor).days} days after the newest signed time"
        yield Finding(
            "clock-ahead", "warning", text, "set the clock; or no mirror was refreshed for that long"
        )


def check_trust(context: Context) -> Iterator[Finding]:
    """The signed metadata hold for some time yet."""
    if not context.paths.pinned_root.exists():
        text = f"the root of trust {context.paths.pinned_root} is missing"
        yield Finding("trust-missing", "error", text, "run the playbook `site`, which pins it")
        return
    if not (context.paths.trust / "metadata/timestamp.json").exists():
        return
    trust = _trust(context)
    now = max(context.clock.now(), trust.time_floor() or datetime.min.replace(tzinfo=timezone.utc))
    for role, expires in sorted(trust.expiry().items()):
        left = expires - now
        when = boot.text(expires)
        if left <= timedelta(0):
            # A node that was not patched for a while has an old timestamp; the next refresh brings a new one.
            severity = "warning" if role in ("timestamp", "snapshot") else "error"
            text = f"the {role} metadata this node knows expired at {when}"
            yield Finding(
                "trust-expired",
                severity,
                text,
                "`kosctl plan` asks the mirrors; else renew on the controller",
            )
        elif role in ("root", "targets", "releases") and left < ROOT_SOON:
            text = f"the {role} metadata expire in {left.days} days, at {when}"
            yield Finding(
                "trust-expires", "warning", text, "renew them on the controller: `kosctl repo renew`"
            )
        elif role == "timestamp" and _nearly_over(trust, expires, now):
            text = f"the timestamp expires at {when}"
            yield Finding(
                "timestamp-expires", "hint", text, "see that `kosctl repo timestamp` runs by its timer"
            )


def check_deadman(context: Context) -> Iterator[Finding]:
    """The dead-man can be armed, and is while a trial runs."""
    for problem in deadman.check(context.paths):
        yield Finding("deadman-not-armable", "error", problem, "run the playbook `site` again")
    for program in ("systemd-run", "flock", "timeout"):
        if shutil.which(program) is None:
            text = f"the program {program} is missing, which a trial needs"
            yield Finding("deadman-not-armable", "error", text, "install it (systemd, util-linux, coreutils)")
    trial = record.read_trial(context.paths.trial)
    if trial is not None and not deadman.is_armed(context.systemd):
        text = f"a trial of {trial.release[:12]} runs and {deadman.TIMER}.timer does not"
        yield Finding("deadman-not-armed", "error", text, "run `kosctl revert`, or confirm the trial now")


def check_trial(context: Context) -> Iterator[Finding]:
    """No trial is stuck."""
    node = context.any_node
    trial = record.read_trial(context.paths.trial)
    fix = "run `kosctl recover`"
    if trial is None:
        if record.read_outcome(context.paths.outcome) or context.paths.trial_confirmed.exists():
            yield Finding("trial-unfinished", "warning", "a trial ended and is not written down yet", fix)
        return
    if trial.boot != node.clock.boot():
        yield Finding("trial-stuck", "error", "a trial of an earlier boot was not ended", fix)
    elif node.clock.boottime() > trial.deadline + recovery.DEADMAN_GRACE_S:
        yield Finding("trial-stuck", "error", "a trial runs past its deadline", fix)


def check_boot_units(context: Context) -> Iterator[Finding]:
    """Generator and early-boot unit are there, and are those of this kosctl."""
    from .host import BOOT, engine_shell

    root, fix = context.paths.root, "run the playbook `site` again"
    generator = root / "etc/systemd/system-generators/kos"
    pairs = [(generator, "generator", "generator"), (context.paths.fallback, "fallback", "fallback")]
    for path, name, what in pairs:
        if not path.is_file():
            yield Finding(f"{what}-missing", "error", f"{path} is missing", fix)
        elif path.read_bytes() != (engine_shell() / name).read_bytes():
            yield Finding(f"{what}-differs", "warning", f"{path} is not that of this kosctl", fix)
        elif not os.access(path, os.X_OK):
            yield Finding(f"{what}-missing", "error", f"{path} is not executable", fix)
    unit = root / "etc/systemd/system/kos-boot.service"
    if not unit.is_file() or unit.read_text() != BOOT:
        yield Finding("boot-unit-missing", "error", f"{unit} is missing or was changed", fix)
    if not (root / "etc/systemd/system/multi-user.target.wants/kos-boot.service").is_symlink():
        text = "kos-boot.service is not enabled: a reboot would not end a trial"
        yield Finding("boot-unit-disabled", "error", text, fix)


def check_mirrors(context: Context) -> Iterator[Finding]:
    """Every mirror answers."""
    from . import fetch

    config = _config(context)
    if config is None:
        return
    limits = fetch.Limits(timeout_s=min(5, config.policy.mirror_timeout_s), total_s=10)
    for mirror in fetch.mirrors(config.mirrors, limits, ca=config.authorities(context.paths)):
        try:
            with mirror.open("metadata/timestamp.json", limit=1 << 16) as body:
                body.read()
        except KosError as error:
            text = f"mirror {evidence.redact(mirror.url)} does not answer: {error.message}"
            yield Finding("mirror-unreachable", "warning", text, "look at the mirror, the link and `mirrors`")


def check_releases(context: Context) -> Iterator[Finding]:
    """No release is refused, and the slots look whole (`kosctl verify` reads every byte)."""
    node = context.any_node
    for one in node.refusals.all():
        text = f"{one.name} {one.version} ({one.root[:12]}) is refused since {one.time}: {one.reason}"
        fix = f"publish a better release; `kosctl refusals --clear {one.root[:12]}` allows it again"
        yield Finding("release-refused", "warning", text, fix)
    for root in context.slots.list():
        try:
            manifest = context.slots.manifest(root)
            for entry in manifest.files:
                path = context.paths.slot(root) / "tree" / entry.path
                size = getattr(entry, "size", None)
                if not os.path.lexists(path) or (size is not None and path.lstat().st_size != size):
                    raise InputError(f"tree/{entry.path} is missing or of another size")
        except KosError as error:
            text = f"slot {root[:12]} is damaged: {error.message}"
            yield Finding("slot-damaged", "error", text, "run `kosctl scrub`, which mends it")
    for link in (context.paths.current, context.paths.previous):
        if link.is_symlink() and node.linked(link) is None:
            text = f"{link} points to a slot that is not there"
            yield Finding("link-broken", "error", text, "stage and activate a release")


def check_health(context: Context) -> Iterator[Finding]:
    """What runs is healthy."""
    from .node import measure

    node = context.any_node
    current = node.linked(context.paths.current)
    if current is None:
        return
    report: health.HealthReport = measure(node, current)
    for check in report.checks:
        if not check.ok:
            severity = "error" if check.required else "warning"
            text = f"{check.unit}: {check.check}: {check.detail}"
            yield Finding("unhealthy", severity, text, f"journalctl -u kos-{check.unit}.service")


def check_records(context: Context) -> Iterator[Finding]:
    """Journal, lease and audit log can be read."""
    node = context.any_node
    damaged = node.journal.damaged()
    if damaged:
        text = f"{damaged} lines of the journal cannot be read"
        yield Finding("journal-damaged", "warning", text, "look at the disk; the node works on without them")
    if node.leases.stale():
        yield Finding(
            "lease-stale", "hint", "a lease was left that is over", "nothing: the next rollout takes it"
        )
    try:
        context.audit.verify()
    except KosError as error:
        yield Finding("audit-broken", "error", error.message, "somebody or the disk changed it; keep a copy")


CHECKS: Sequence[Check] = (
    check_configuration,
    check_disk,
    check_clock,
    check_trust,
    check_deadman,
    check_trial,
    check_boot_units,
    check_mirrors,
    check_releases,
    check_health,
    check_records,
)


def write_bundle(context: Context, findings: Sequence[Finding], path: Path) -> None:
    """Write one tar.gz for support, readable to its owner alone, with what may be a secret taken out.

    In it are findings, status, versions, configuration, journal, audit log, evidence and the logs of units;
    no state of units, no keys, no tokens.

    Args:
        findings: of `examine`.
        path: of the archive; replaced where it is there.
    """
    texts = dict(_bundle_texts(context, findings))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in sorted(texts.items()):
            data = text.encode("utf-8", "replace")[-MAX_BUNDLE_FILE:]
            member = tarfile.TarInfo(f"kos-support/{name}")
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    files.write_durable(path, buffer.getvalue(), mode=0o600)


def _bundle_texts(context: Context, findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    paths = context.paths
    yield "findings.json", _dump([asdict(one) for one in findings])
    yield "versions.json", _dump(evidence.versions())
    try:
        shown = context.status()
    except (KosError, OSError) as error:
        yield "status.json", _dump({"error": str(error)})
    else:
        yield "status.json", _dump(shown)
        for unit in shown["units"]:
            argv = ["journalctl", "--no-pager", "--quiet", f"--unit={unit['service']}", "--lines=500"]
            yield f"units/{unit['service']}.log", evidence.redact(_said(argv))
    yield "journal.json", _dump(context.any_node.journal.entries()[-200:])
    yield "audit.json", _dump(context.audit.newest(200))
    yield "systemd.txt", evidence.redact(_said(["systemctl", "list-units", "--all", "--no-pager", "kos*"]))
    texts = [paths.trial, paths.outcome, paths.trial_health, paths.refusals, paths.lease, paths.running]
    for path in (paths.node_json, *sorted(paths.conf_d.glob("*.json")), *texts):
        if path.is_file():
            yield f"files/{path.relative_to(paths.root)}", _redacted_file(path)
    for trial in evidence.ids(paths.evidence)[-3:]:
        for name, text in evidence.read(paths.evidence, trial)["files"].items():
            yield f"evidence/{trial}/{name}", text


def _redacted_file(path: Path) -> str:
    try:
        return _dump(json.loads(path.read_bytes()))
    except ValueError:
        return evidence.redact(path.read_text(errors="replace"))


def _dump(value: object) -> str:
    return json.dumps(evidence.redact_value(value), indent=1, sort_keys=True) + "\n"


def _said(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{argv[0]} could not be asked: {error}\n"
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def _nearly_over(trust: Trust, expires: datetime, now: datetime) -> bool:
    issued = trust.time_floor()
    return issued is not None and (expires - now) < (expires - issued) * TIMESTAMP_LEFT


def _trust(context: Context) -> Trust:
    from .trust import Trust

    return Trust(context.paths, [], context.clock)


def _config(context: Context) -> Config | None:
    try:
        return context.config
    except InputError:
        return None


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
