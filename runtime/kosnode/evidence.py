"""What a failed trial leaves for people: outcome, health, logs, versions; bounded, and without secrets."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import __version__, files
from .errors import InputError, NotFoundError

KEEP = 10
LOG_LINES = 200
MAX_FILE_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 1024 * 1024
INDEX = "index.json"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_SECRET_KEY = re.compile(
    r"token|passw(?:or)?d|passphrase|^pass$|secret|credential|private|^auth$|authorization|cookie|key$", re.I
)
# Every length is bounded: a log that is made to be hard to read must not hold anybody up.
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{1,64}-----.*?(?:-----END [A-Z0-9 ]{1,64}-----|\Z)", re.S)
_USER_INFO = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]{0,31}://)[^/\s@\"']{1,256}@")
_BEARER = re.compile(r"\b(bearer|basic)\s{1,4}[a-z0-9._~+/=-]{8,}", re.I)
_PAIR = re.compile(
    r"""(?P<key>["']?(?<![A-Za-z0-9_.-])(?P<name>[A-Za-z0-9_.-]{1,64})["']?\s{0,4}[:=]\s{0,4})"""
    r"""(?P<value>"(?:[^"\\]|\\.){0,4096}"|'[^']{0,4096}'|[^\s,;}]{1,4096})"""
)
REDACTED = "[redacted]"


def redact(text: str) -> str:
    """Take PEM blocks, users in addresses, bearer tokens and values of secret-looking keys out of text."""
    text = _PEM.sub(REDACTED, text)
    text = _USER_INFO.sub(rf"\1{REDACTED}@", text)
    text = _BEARER.sub(rf"\1 {REDACTED}", text)
    return _PAIR.sub(_without_value, text)


def redact_value(value: Any) -> Any:
    """Take secrets out of JSON: values of keys that name a secret, and what `redact` finds in any text."""
    if isinstance(value, dict):
        return {
            key: REDACTED
            if _SECRET_KEY.search(str(key)) and not isinstance(item, (dict, list, bool, type(None)))
            else redact_value(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact_value(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def collect(
    folder: Path,
    *,
    documents: Mapping[str, Any],
    units: Sequence[str],
) -> None:
    """Write the evidence of one trial; a second call writes the same files anew.

    What `fallback` has put there (state-UNIT) stays. That a log cannot be read is written in its place.

    Args:
        folder: `evidence/ID`.
        documents: JSON values by the name of their file.
        units: systemd's names, whose logs and states are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / "units").mkdir(exist_ok=True)
    texts: dict[str, str] = {}
    for unit in units:
        journal = [
            "journalctl",
            "--no-pager",
            "--quiet",
            "--output=short-iso-precise",
            f"--lines={LOG_LINES}",
        ]
        texts[f"units/{unit}.log"] = redact(_said([*journal, f"--unit={unit}"]))
        texts[f"units/{unit}.status"] = redact(
            _said(["systemctl", "status", "--no-pager", "--lines=0", "--", unit])
        )
    data = {name: _bounded(text) for name, text in texts.items()}
    for name, value in {**documents, "versions.json": versions()}.items():
        data[name] = files.canonical(redact_value(value))
    data[INDEX] = files.canonical(
        {"id": folder.name, "files": {name: len(text) for name, text in data.items()}}
    )
    for name, content in data.items():
        files.write_durable(folder / name, content, mode=0o600)


def read(evidence: Path, trial: str) -> dict[str, Any]:
    """Return the texts of one trial's evidence, redacted once more.

    Args:
        evidence: folder of all evidence.
        trial: id.

    Returns:
        `{"id", "files": {name: text}, "truncated"}`, at most MAX_ANSWER_BYTES. State that was set aside is
        not in it: it belongs to the unit.

    Raises:
        InputError: no id; NotFoundError: no evidence of that trial.
    """
    if not _ID.fullmatch(trial):
        raise InputError("evidence id: letters, digits and hyphens, as in status", key="id")
    folder = evidence / trial
    if not folder.is_dir():
        raise NotFoundError(f"there is no evidence of trial {trial} on this node", key="id")
    texts: dict[str, str] = {}
    room = MAX_ANSWER_BYTES
    truncated = False
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0].startswith("state-") or path.is_symlink() or not path.is_file():
            continue
        text = redact(_tail(path))
        size = len(text.encode("utf-8", "replace")) + len(str(name))
        if size > room:
            truncated = True
            continue
        room -= size
        texts[str(name)] = text
    return {"id": trial, "files": texts, "truncated": truncated}


def ids(evidence: Path) -> list[str]:
    """Return the trials of which there is evidence, oldest first: an id begins with its time."""
    return sorted(path.name for path in evidence.iterdir() if path.is_dir()) if evidence.is_dir() else []


def prune(evidence: Path, keep: int = KEEP) -> list[str]:
    """Remove all but the newest evidence; returns the ids that went."""
    old = ids(evidence)[:-keep]
    for trial in old:
        shutil.rmtree(evidence / trial)
    return old


def versions() -> dict[str, Any]:
    """Return what this host and this kosctl are."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return {
        "kosctl": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "os": f"{release.get('ID', 'unknown')} {release.get('VERSION_ID', '')}".strip(),
    }


def _without_value(pair: re.Match[str]) -> str:
    secret = _SECRET_KEY.search(pair["name"])
    return f'{pair["key"]}"{REDACTED}"' if secret else pair[0]


def _said(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{argv[0]} could not be asked: {error}\n"
    return done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - MAX_FILE_BYTES))
            return stream.read().decode("utf-8", "replace")
    except OSError as error:
        return f"{path.name} could not be read: {error.strerror}\n"


def _bounded(text: str) -> bytes:
    """Return the end of a text, which is where the news are."""
    return text.encode("utf-8", "replace")[-MAX_FILE_BYTES:]
