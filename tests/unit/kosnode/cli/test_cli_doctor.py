"""The doctor names what is wrong in plain words, with what helps, and its archive holds no secret."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.kosnode.cli.cli_node import CliNode

from kosnode import doctor, evidence, files
from kosnode.host import BOOT, engine_shell


@pytest.fixture
def sound(bed: CliNode) -> CliNode:
    """A node that runs a release and has nothing wrong with it."""
    bed.publish("1.0.0")
    bed.install("1.0.0")
    system = bed.root / "etc/systemd"
    (system / "system-generators").mkdir(parents=True)
    shutil.copy(engine_shell() / "generator", system / "system-generators/kos")
    (system / "system-generators/kos").chmod(0o755)
    (system / "system/multi-user.target.wants").mkdir(parents=True)
    (system / "system/kos-boot.service").write_text(BOOT)
    (system / "system/multi-user.target.wants/kos-boot.service").symlink_to("../kos-boot.service")
    return bed


def found(bed: CliNode) -> dict[str, doctor.Finding]:
    return {one.id: one for one in doctor.examine(bed.context())}


def test_nothing_is_wrong_with_a_sound_node(sound: CliNode) -> None:
    assert found(sound) == {}
    assert sound.kosctl("doctor")["exit"] == 0


def _fill_disk(bed: CliNode) -> None:
    config = json.loads(bed.paths.node_json.read_text())
    config["policy"]["reserve_bytes"] = 1 << 40
    bed.paths.node_json.write_text(json.dumps(config))


def _start_trial(bed: CliNode) -> None:
    bed.publish("1.1.0")
    bed.operate("stage")
    assert bed.operate("activate")["ok"]


def _disarm(bed: CliNode) -> None:
    _start_trial(bed)
    bed.systemd.timers.clear()


def _overdue(bed: CliNode) -> None:
    _start_trial(bed)
    bed.clock.forward(3600)


def _refuse(bed: CliNode) -> None:
    from kosnode.refusals import Refusal

    bed.context().node.refusals.add(
        Refusal("c" * 64, "kos", "0.9.0", "http 500", "2026-11-21T12:00:00Z", "t-1")
    )


def _damage(bed: CliNode) -> None:
    (slot,) = bed.paths.releases.iterdir()
    program = slot / "tree/bin/a"
    program.chmod(0o755)
    program.write_bytes(b"short")


def _lease(bed: CliNode) -> None:
    bed.operate("lease", take="rollout-1", holder="alice", ttl_s=1)
    bed.clock.forward(5)


FAULTS: dict[str, tuple[str, str, Callable[[CliNode], object]]] = {
    "disk": ("disk-low", "error", _fill_disk),
    "clock behind": ("clock-behind", "warning", lambda bed: bed.clock.forward(-3 * 24 * 3600)),
    "clock in 1970": ("clock-behind", "warning", lambda bed: bed.clock.forward(-56 * 365 * 24 * 3600)),
    "clock ahead": ("clock-ahead", "warning", lambda bed: bed.clock.forward(10 * 365 * 24 * 3600)),
    "root missing": ("trust-missing", "error", lambda bed: bed.paths.pinned_root.unlink()),
    "root expires": ("trust-expires", "warning", lambda bed: bed.clock.forward(350 * 24 * 3600)),
    "timestamp expired": ("trust-expired", "warning", lambda bed: bed.clock.forward(3 * 24 * 3600)),
    "timestamp nearly": ("timestamp-expires", "hint", lambda bed: bed.clock.forward(45 * 3600)),
    "fallback missing": ("deadman-not-armable", "error", lambda bed: bed.paths.fallback.unlink()),
    "fallback not executable": ("deadman-not-armable", "error", lambda bed: bed.paths.fallback.chmod(0o644)),
    "fallback changed": (
        "fallback-differs",
        "warning",
        lambda bed: bed.paths.fallback.write_text("#!/bin/sh\n"),
    ),
    "trial without dead-man": ("deadman-not-armed", "error", _disarm),
    "trial overdue": ("trial-stuck", "error", _overdue),
    "generator missing": (
        "generator-missing",
        "error",
        lambda bed: (bed.root / "etc/systemd/system-generators/kos").unlink(),
    ),
    "boot unit missing": (
        "boot-unit-missing",
        "error",
        lambda bed: (bed.root / "etc/systemd/system/kos-boot.service").unlink(),
    ),
    "boot unit disabled": (
        "boot-unit-disabled",
        "error",
        lambda bed: (bed.root / "etc/systemd/system/multi-user.target.wants/kos-boot.service").unlink(),
    ),
    "mirror gone": ("mirror-unreachable", "warning", lambda bed: shutil.rmtree(bed.publisher.folder)),
    "refused": ("release-refused", "warning", _refuse),
    "slot damaged": ("slot-damaged", "error", _damage),
    "unit down": ("unhealthy", "error", lambda bed: bed.systemd.down.add("kos-a.service")),
    "lease over": ("lease-stale", "hint", _lease),
    "audit broken": ("audit-broken", "error", lambda bed: bed.paths.audit.write_text('{"hash":"x"}\n')),
    "configuration wrong": ("configuration", "error", lambda bed: bed.paths.node_json.write_text("{}")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_with_what_helps(sound: CliNode, fault: str) -> None:
    wanted, severity, make = FAULTS[fault]
    make(sound)
    finding = found(sound).get(wanted)
    assert finding is not None, found(sound)
    assert finding.severity == severity
    assert finding.text
    assert finding.fix
    answered = sound.kosctl("doctor")
    assert answered["exit"] == 12
    assert wanted in [one["id"] for one in answered["result"]["findings"]]


def test_a_check_that_cannot_be_run_is_a_finding_and_hides_no_other(
    sound: CliNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(context: object) -> list[doctor.Finding]:
        """Something is as it should be."""
        raise RuntimeError("oh")

    monkeypatch.setattr(doctor, "CHECKS", (broken, *doctor.CHECKS))
    sound.systemd.down.add("kos-a.service")
    assert {"check-failed", "unhealthy"} <= set(found(sound))


SECRETS = {
    "password": "correct-horse",
    "api_token": "tok-3f9a77",
    "db_secret": "s3cr3t-value",
    "signing_key": "k3y-material",
}
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----"


def test_a_planted_secret_is_not_in_the_archive(sound: CliNode, tmp_path: Path) -> None:
    config = json.loads(sound.paths.node_json.read_text())
    config["units"] = {"a": {"config": {**SECRETS, "url": "postgres://bob:hunter2@db/x", "pem": PEM}}}
    sound.paths.node_json.write_text(json.dumps(config))
    folder = sound.paths.evidence / "20261121T120000Z-00000000"
    folder.mkdir()
    (folder / "unit.log").write_text(
        f"login password=correct-horse\nAuthorization: Bearer tok-3f9a77\n{PEM}\n"
    )
    sound.context().node.journal.append("VERIFIED", release="c" * 64, detail="token=tok-3f9a77")
    sound.context().audit.append({"verb": "stage", "error": "token=tok-3f9a77"}, {"user": "root"})
    sound.paths.audit.rename(sound.paths.audit.with_name(f"{sound.paths.audit.name}.1"))
    archive = tmp_path / "support.tar.gz"
    sound.kosctl("doctor", "--bundle", str(archive))
    assert archive.stat().st_mode & 0o777 == 0o600
    with tarfile.open(archive) as packed:
        texts = {one.name: packed.extractfile(one) for one in packed.getmembers()}
        read = {name: stream.read().decode() for name, stream in texts.items() if stream is not None}
    whole = "\n".join(read.values())
    # Also what stands in a file that the log was rotated into.
    assert '"user": "root"' in read["kos-support/audit.json"]
    told = {f"kos-support/{name}.json" for name in ("status", "findings", "journal", "audit")}
    assert told <= set(texts)
    for secret in (*SECRETS.values(), "hunter2", "b3BlbnNzaC1rZXktdjEAAAAA"):
        assert secret not in whole, secret
    assert "correct" not in whole


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("password: hunter2", "hunter2"),
        ('{"token": "hunter2"}', "hunter2"),
        ("export API_KEY='hunter2'", "hunter2"),
        ("https://bob:hunter2@host/x", "hunter2"),
        ("Authorization: Basic aHVudGVyMjpodW50ZXIy", "aHVudGVyMjpodW50ZXIy"),
        ("-----BEGIN RSA PRIVATE KEY-----\nhunter2\n", "hunter2"),
        ("db.passphrase=hunter2, more", "hunter2"),
    ],
)
def test_secrets_are_taken_out_of_text(text: str, secret: str) -> None:
    assert secret not in evidence.redact(text)


@pytest.mark.parametrize(
    "text", ["kos-a.service: active", "trial 20261121T120000Z ended: health", "GET /health 200"]
)
def test_plain_text_stays(text: str) -> None:
    assert evidence.redact(text) == text


def test_secrets_are_taken_out_of_values_at_any_depth() -> None:
    value = {"a": [{"password": "x", "fine": "y"}], "token": 7, "keys": {"k": "v"}}
    shown = evidence.redact_value(value)
    assert shown == {
        "a": [{"password": evidence.REDACTED, "fine": "y"}],
        "token": evidence.REDACTED,
        "keys": {"k": "v"},
    }
    assert files.canonical(shown)
