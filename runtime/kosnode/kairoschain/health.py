"""Looks whether a KairosChain node is well: its /health is a constant, and its chain_verify sees in part."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import files, ledger
from ..errors import KosError
from ..systemd import Systemd
from . import layout, tokens, units
from .application import Application, ChainVerify
from .record import Wanted

_DAY_S = 86_400
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Report:
    """What was found.

    Args:
        findings: a sentence for each thing that is wrong; none where all is well.
        verdict: on the ledger.
        chain_verify: what the application said of it; None where it could not be asked.
        service: whether the server runs.
        http: what /health answered; None where it gave no answer.
        token_expires_s: seconds until the admin token expires; None where there is none.
        seconds: what the verification took.
    """

    findings: tuple[str, ...]
    verdict: ledger.Verdict
    chain_verify: ChainVerify | None
    service: bool
    http: Mapping[str, Any] | None
    token_expires_s: float | None
    seconds: float
    at: float = field(default_factory=time.time)

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def last_block(self) -> float | None:
        """When the last block was written, seconds since 1970."""
        head = self.verdict.head
        if head is None:
            return None
        parsed = datetime.strptime(head.timestamp, "%Y-%m-%dT%H:%M:%S.%fZ")
        return parsed.replace(tzinfo=timezone.utc).timestamp()

    def as_dict(self) -> dict[str, Any]:
        """Return the result of `kosctl kairoschain check`."""
        return {
            "findings": list(self.findings),
            "ledger": self.verdict.as_dict(),
            "chain_verify": self.chain_verify.text if self.chain_verify else None,
            "service": self.service,
            "version": (self.http or {}).get("version"),
            "token_expires_in_s": None if self.token_expires_s is None else int(self.token_expires_s),
        }


def look(
    wanted: Wanted,
    data: Path,
    token: Path,
    application: Application,
    systemd: Systemd,
    ask: Callable[[Wanted], Mapping[str, Any] | None],
) -> Report:
    """Look at the server, its ledger by two verifiers, and its token. Changes nothing.

    Args:
        wanted: what the node is to be.
        data: data directory.
        token: file of the admin token.
        application: the version that is installed.
        systemd: of the host.
        ask: gives what the server says of itself, `ask_health` as a rule.
    """
    findings = []
    names = [units.SERVICE, *([units.PROXY] if wanted.proxy else [])]
    running = {name: systemd.is_active(name) for name in names}
    findings += [f"{name} does not run" for name, active in running.items() if not active]
    answered = ask(wanted) if running[units.SERVICE] else None
    if running[units.SERVICE] and answered is None:
        findings.append(f"the server does not answer at {wanted.host}:{wanted.port}")
    elif answered is not None and answered.get("version") != wanted.version:
        findings.append(f"the server is version {answered.get('version')}, and not {wanted.version}")
    began = time.monotonic()
    path = layout.ledger(data)
    said = None
    with ledger.shared(path):
        verdict = ledger.verify(path)
        seconds = time.monotonic() - began
        if layout.is_data(data):
            said = application.chain_verify(data)
    if not verdict.ok:
        findings.append(verdict.sentence())
    if said is None:
        findings.append(f"{data} is no data directory of KairosChain")
    elif not said.ok:
        findings.append(f"chain_verify: {said.text}")
    elif said.length != verdict.length:
        findings.append(f"chain_verify sees {said.length} blocks, and the ledger has {verdict.length}")
    expires = None
    if token.is_file() and tokens.digest(token) in tokens.known(data):
        expires = wanted.expiry_days * _DAY_S - tokens.age_s(token)
    if expires is None or expires <= 0:
        findings.append(f"{token} holds no token that the server takes")
    return Report(tuple(findings), verdict, said, running[units.SERVICE], answered, expires, seconds)


def ask_health(wanted: Wanted) -> dict[str, Any] | None:
    """Return what /health answers, or None."""
    connection: http.client.HTTPConnection
    if wanted.tls:
        # It is asked whether it answers; who it is, its users check.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            wanted.host, wanted.port, timeout=_TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(wanted.host, wanted.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        value = json.loads(answer.read(65_536)) if answer.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return value if isinstance(value, dict) else None


def write_metrics(path: Path, report: Report, wanted: Wanted) -> None:
    """Write what a textfile collector reads (K09), by one rename."""
    known: dict[str, tuple[str, float | None]] = {
        "up": ("Whether the server runs and answers.", float(report.service and report.http is not None)),
        "healthy": ("Whether the deep check found nothing.", float(report.ok)),
        "ledger_ok": ("Whether the ledger is whole.", float(report.verdict.ok)),
        "ledger_blocks": ("Blocks of the ledger.", report.verdict.length),
        "ledger_last_block_timestamp_seconds": ("When the last block was written.", report.last_block),
        "ledger_last_block_age_seconds": (
            "Age of the last block when the check ran.",
            None if report.last_block is None else report.at - report.last_block,
        ),
        "ledger_verify_duration_seconds": ("What the verification took.", report.seconds),
        "chain_verify_ok": (
            "Whether the application's own check calls the ledger whole.",
            float(report.chain_verify is not None and report.chain_verify.ok),
        ),
        "admin_token_expires_in_seconds": ("Until the admin token expires.", report.token_expires_s),
        "check_timestamp_seconds": ("When the deep check ran.", report.at),
    }
    lines = []
    for name, (text, value) in known.items():
        if value is not None:
            lines += [f"# HELP kairoschain_{name} {text}", f"# TYPE kairoschain_{name} gauge"]
            lines.append(f"kairoschain_{name} {value:.6f}".rstrip("0").rstrip("."))
    lines += ["# HELP kairoschain_info What is installed.", "# TYPE kairoschain_info gauge"]
    lines.append(f'kairoschain_info{{version="{wanted.version}"}} 1')
    if not path.parent.is_dir():
        raise KosError(f"{path.parent}, where metrics go, is not there", key="metrics")
    files.write_durable(path, ("\n".join(lines) + "\n").encode(), mode=0o644)
