"""The operator account's gate: one request as JSON on standard input, verbs and options from an allow list.

Nothing of a request reaches the command line, a shell or a path: each option has a type and a pattern, and
what is not on the list is refused by name (docs/decisions/0003).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from . import cli, command, files, lease, verbs
from .errors import InputError

MAX_BYTES = 64 * 1024
# The lines of a witness come with the request of a drill: some 70 000 of them.
MAX_DRILL_BYTES = 64 * 1024 * 1024
_MAX_ITEMS = 256
_MAX_NAMES = 10_000
_MAX_LINES = 1_000_000

Check = Callable[[str, Any], None]


def _pattern(pattern: str, rule: str) -> Check:
    compiled = re.compile(pattern)

    def check(key: str, value: Any) -> None:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise InputError(f"{key}: must be {rule}", key=key)

    return check


def _number(least: int, most: int) -> Check:
    def check(key: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InputError(f"{key}: must be a whole number from {least} to {most}", key=key)

    return check


def _flag(key: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{key}: must be true or false", key=key)


def _list(one: Check, least: int = 1, most: int = _MAX_ITEMS) -> Check:
    def check(key: str, value: Any) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise InputError(f"{key}: must be a list of {least} to {most}", key=key)
        for item in value:
            one(key, item)

    return check


def _object(key: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{key}: must be an object", key=key)


def _credentials(key: str, value: Any) -> None:
    _object(key, value)
    for name, text in value.items():
        if name not in _CREDENTIALS:
            known = ", ".join(_CREDENTIALS)
            raise InputError(f"{key}: {_shown(name)}: may not be set here; these may: {known}", key=key)
        _SECRET(key, text)


_RELEASE = _pattern(
    r"previous|[0-9a-f]{12,64}|[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}(-[0-9A-Za-z.-]{1,48})?",
    "a version, a root of 12 to 64 hex digits, or previous",
)
_ROOT = _pattern(r"[0-9a-f]{12,64}", "a root of 12 to 64 hex digits")
_LEASE = _pattern(lease.ID.pattern, "1 to 64 letters, digits and . _ : -")
_HOLDER = _pattern(lease.HOLDER.pattern, "1 to 128 letters, digits, blanks and . _ : @ / -")
_TRIAL = _pattern(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", "the id of a trial")
_TOKEN = _pattern(r"[0-9a-f]{64}", "the 64 hex digits that activate answered")
_NAME = _pattern(r"[a-z][a-z0-9-]{0,62}", "a lower-case letter, then letters, digits and hyphens, at most 63")
_NODE = _pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "the name of a node")
_SEED = _pattern(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", "1 to 128 letters, digits and . _ : -")
_TIME = _pattern(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", "a time as 2026-01-31T12:00:00Z")
_HASH = _pattern(r"[0-9a-f]{64}", "64 hex digits")
_SECRET = _pattern(r"[^\x00-\x1f\x7f]{1,4096}", "text of one line")
# Values alone. Others that backends know name files, and a file of credentials may name a program to run.
_CREDENTIALS = (
    *("RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"),
)
_WISH: Mapping[str, Check] = {"release": _RELEASE, "allow_downgrade": _flag, "accept_risk": _flag}
_SECONDS = _number(1, 86_400)
_SWITCH: Mapping[str, Check] = {**_WISH, "bake_s": _SECONDS, "deadline_s": _SECONDS, "lease": _LEASE}

# Each verb with its options. A path, a mirror or a command is none of them.
ALLOWED: Mapping[str, Mapping[str, Check]] = {
    "status": {},
    "health": {},
    "units": {},
    "doctor": {},
    "plan": _WISH,
    "stage": {**_WISH, "lease": _LEASE},
    "activate": _SWITCH,
    "rollback": _SWITCH,
    "confirm": {"token": _TOKEN, "lease": _LEASE},
    "revert": {"lease": _LEASE},
    "recover": {},
    "verify": {"release": _RELEASE},
    "gc": {"release": _RELEASE},
    "refusals": {"clear": _ROOT},
    "lease": {"take": _LEASE, "release": _LEASE, "holder": _HOLDER, "ttl_s": _number(1, lease.MAX_TTL_S)},
    "evidence": {"id": _TRIAL},
    "backup run": {"source": _list(_NAME), "dry_run": _flag},
    "backup list": {"source": _NAME},
    "backup check": {},
    "witness read": {"node": _NODE},
    # The rest of a drill is in a file of root's (drill/assignment.py).
    "drill": {
        "node": _NODE,
        "repository": _NAME,
        "recovery_key": _SECRET,
        "environment": _credentials,
        "seed": _SEED,
        "sources": _list(_NAME),
        "time": _TIME,
        "picked": _list(_NODE, most=_MAX_NAMES),
        "among": _list(_NODE, most=_MAX_NAMES),
        "lines": _list(_object, least=0, most=_MAX_LINES),
        "previous": _HASH,
    },
}
_REQUIRED = {
    "confirm": ("token",),
    "evidence": ("id",),
    "witness read": ("node",),
    "drill": ("node", "repository", "recovery_key", "seed"),
}
# What sudo lets through and a child could be moved by is not handed on.
_ENVIRONMENT = ("LANG", "LC_ALL", "SUDO_USER", "SUDO_UID", "SSH_CONNECTION", "TZ")


def main(context: verbs.Context) -> int:
    """Answer one request on standard input; the answer is JSON always."""
    scrub_environment()
    answered = handle(context, sys.stdin.buffer.read(MAX_DRILL_BYTES + 1))
    print(answered.json(), flush=True)
    return answered.exit


def handle(context: verbs.Context, data: bytes) -> command.Answer:
    """Answer one request.

    Args:
        data: as it came, at most MAX_BYTES, and MAX_DRILL_BYTES for a drill.

    Returns:
        An answer whatever came: what is not on the list is refused with exit 2 and changes nothing.
    """
    verb = "operate"
    try:
        verb, options = parse(data)
    except InputError as error:
        refused = error
        return command.answer(verb, lambda: _refuse(refused), status=context.status)
    words = verb.split()
    args = cli.build_parser(words).parse_args(["--root", str(context.paths.root), *words])
    for key, value in {**options, "needs_lease": True}.items():
        setattr(args, key, value)
    return cli.run(context, args)


def parse(data: bytes) -> tuple[str, dict[str, Any]]:
    """Read a request.

    Returns:
        Verb and options, both from the allow list.

    Raises:
        InputError: names the key and the rule.
    """
    request = files.parse(data, limit=MAX_DRILL_BYTES, what="the request")
    if not isinstance(request, dict):
        raise InputError('the request must be an object such as {"format":1,"verb":"status","options":{}}')
    unknown = sorted(set(request) - {"format", "verb", "options"})
    if unknown:
        raise InputError(
            f"{_shown(unknown[0])}: no key of a request; these are format, verb and options", key="request"
        )
    if request.get("format") != 1 or isinstance(request.get("format"), bool):
        raise InputError("format: must be 1", key="format")
    verb, options = request.get("verb"), request.get("options", {})
    if not isinstance(verb, str) or verb not in ALLOWED:
        raise InputError(f"verb: must be one of {', '.join(sorted(ALLOWED))}", key="verb")
    if verb != "drill" and len(data) > MAX_BYTES:
        raise InputError(f"the request has {len(data)} bytes, at most {MAX_BYTES} are allowed")
    if not isinstance(options, dict):
        raise InputError("options: must be an object", key="options")
    allowed = ALLOWED[verb]
    for key, value in options.items():
        if key not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise InputError(f"{_shown(key)}: no option of {verb}; its options: {known}", key=_shown(key))
        allowed[key](key, value)
    for key in _REQUIRED.get(verb, ()):
        if key not in options:
            raise InputError(f"{key}: {verb} needs it", key=key)
    return verb, options


def scrub_environment() -> None:
    """Leave only what is known to be harmless in the environment."""
    kept = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"


def _refuse(error: InputError) -> command.Result:
    raise error


def _shown(key: str) -> str:
    return ascii(key)[1:-1][:64]
