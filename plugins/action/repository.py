# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that runs the publisher on the controller: keys, repository, release, signatures, publication."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import typing as t
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl

ROLES = ("root", "targets", "releases")
ARGUMENTS: dict[str, t.Any] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "published"], "default": "published"},
    "root_keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
    "root_threshold": {"type": "int"},
    "releases_keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
    "releases_threshold": {"type": "int"},
    "online_key": {"type": "path", "no_log": False},
    "online_passphrase_file": {"type": "path", "no_log": False},
    "sign_with": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "key": {"type": "path", "required": True, "no_log": False},
            "passphrase_file": {"type": "path", "required": True, "no_log": False},
        },
    },
    "make_keys": {"type": "bool", "default": False},
    "tree": {"type": "path"},
    "version": {"type": "str"},
    "name": {"type": "str"},
    "arch": {"type": "str", "choices": ["any", "x86_64", "aarch64"]},
    "release_file": {"type": "path"},
    "channels": {"type": "list", "elements": "str", "default": ["stable"]},
    "mirror_dir": {"type": "path"},
    "engine": {"type": "path"},
}


class ActionModule(ActionBase):
    """See the documentation of module kos.fleet.repository."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, self._args = self.validate_argument_spec(ARGUMENTS)
        self._actions: list[str] = []
        self._waiting: dict[str, t.Any] = {}
        args = self._args
        repository = Path(args["path"])
        if not (repository / "config.json").is_file():
            missing = [name for name in ("root_keys", "releases_keys", "online_key") if not args[name]]
            if missing:
                raise AnsibleActionFail(
                    f"{repository} is no repository; to make one, set {', '.join(missing)}"
                )
            if self._task.check_mode:
                self._actions = [
                    f"make {repository}",
                    *([f"build {args['version']}"] if args["tree"] else []),
                ]
                return {"changed": True, "actions": self._actions, "waiting": {}, "releases": []}
            self._init(repository)
        else:
            self._look(repository)
        result: dict[str, t.Any] = {}
        if args["tree"]:
            result["root"] = self._build(repository)
        if not self._task.check_mode:
            self._sign(repository)
            if args["state"] == "published":
                self._publish(repository)
        first_root = repository / "public/metadata/1.root.json"
        return {
            **result,
            "changed": bool(self._actions),
            "actions": self._actions,
            "waiting": self._waiting,
            "public": str(repository / "public"),
            "trust_root": str(first_root) if first_root.is_file() else None,
            "releases": self._ask(["list", str(repository)]).result["releases"],
        }

    def _init(self, repository: Path) -> None:
        args = self._args
        if args["make_keys"]:
            self._make_keys()
        words = ["init", str(repository), "--online-key", args["online_key"]]
        for role in ("root", "releases"):
            for key in args[f"{role}_keys"]:
                words += [f"--{role}-key", key]
            if args[f"{role}_threshold"] is not None:
                words += [f"--{role}-threshold", str(args[f"{role}_threshold"])]
        self._note(self._do([*words, *self._online_passphrase()]).result["waiting"])

    def _make_keys(self) -> None:
        args = self._args
        pairs = [(one["key"], one["passphrase_file"]) for one in args["sign_with"]]
        if args["online_passphrase_file"]:
            pairs.append((args["online_key"], args["online_passphrase_file"]))
        for key, passphrase_file in pairs:
            if not Path(key).exists():
                Path(key).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._do(["key", "new", "--out", key, "--passphrase-file", passphrase_file])

    def _build(self, repository: Path) -> str | None:
        args = self._args
        if self._task.check_mode:
            known = self._ask(["list", str(repository)]).result["releases"]
            found = [row for row in known if row["version"] == args["version"]]
            if not found:
                self._actions.append(f"build {args['version']} from {args['tree']}")
            return found[0]["root"] if found else None
        words = ["build", str(repository), "--tree", args["tree"]]
        for option in ("name", "version", "arch", "release_file"):
            if args[option]:
                words += [f"--{option.replace('_', '-')}", args[option]]
        for channel in args["channels"]:
            words += ["--channel", channel]
        built = self._do(words).result
        self._note({"releases": built["waiting"]})
        return str(built["root"])

    def _sign(self, repository: Path) -> None:
        if not self._waiting:
            return
        holders = {self._holder(one["key"]): one for one in self._args["sign_with"]}
        for role in list(self._waiting):
            for name, one in holders.items():
                if not any(name in quorum["waiting_for"] for quorum in self._waiting[role]["quorums"]):
                    continue
                words = ["sign", str(repository), "--role", role, "--key", one["key"]]
                signed = self._do([*words, "--passphrase-file", one["passphrase_file"]])
                self._note({role: signed.result})

    def _holder(self, key: str) -> str:
        return str(self._ask(["key", "show", str(Path(key).with_suffix(".pub"))]).result["holder"])

    def _publish(self, repository: Path) -> None:
        short = [
            f"{role} needs {quorum['missing']} more of {', '.join(quorum['waiting_for'])}; "
            f"they sign {document['file']}"
            for role, document in self._waiting.items()
            for quorum in document["quorums"]
            if quorum["missing"] > 0
        ]
        if short:
            raise AnsibleActionFail(f"cannot publish yet: {'; '.join(short)}")
        words = ["publish", str(repository)]
        if self._args["mirror_dir"]:
            words += ["--to", self._args["mirror_dir"]]
        self._do([*words, *self._online_passphrase()])
        self._waiting = {}

    def _online_passphrase(self) -> list[str]:
        path = self._args["online_passphrase_file"]
        return ["--passphrase-file", path] if path else []

    def _look(self, repository: Path) -> None:
        """Note what an earlier run left waiting for signatures."""
        for role in ROLES:
            answer = self._ask(["sign", str(repository), "--role", role, "--show"], may_fail=True)
            self._note({role: answer.result if answer.ok else None})

    def _note(self, documents: Mapping[str, t.Any]) -> None:
        """Note what waits for signatures, of what the publisher said last."""
        for role, document in documents.items():
            if document:
                self._waiting[role] = {
                    key: document[key] for key in ("file", "version", "quorums", "changes")
                }

    def _do(self, words: Sequence[str]) -> _kosctl.Answer:
        answer = self._ask(words)
        self._actions += answer.actions if answer.changed else []
        return answer

    def _ask(self, words: Sequence[str], *, may_fail: bool = False) -> _kosctl.Answer:
        """Ask the publisher in this process: starting Python for each step would cost more than the step."""
        publisher = self._publisher()
        stdout, stderr = io.StringIO(), _Progress(lambda line: self._display.display(f"  {line}"))
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                code = int(publisher([*map(str, words), "--json"]))
            except SystemExit as error:  # words that its parser does not take
                code = int(error.code or 0)
        try:
            answer = _kosctl.parse(f"repo {words[0]}", code, stdout.getvalue(), stderr.getvalue())
        except _kosctl.AnswerError as error:
            raise AnsibleActionFail(str(error)) from None
        if not answer.ok and not may_fail:
            raise AnsibleActionFail(_kosctl.failure(answer)["msg"])
        return answer

    def _publisher(self) -> Callable[[Sequence[str]], int]:
        engine = Path(self._args["engine"] or Path(__file__).resolve().parents[2] / "runtime")
        if engine.is_dir() and str(engine.resolve()) not in sys.path:
            sys.path.insert(0, str(engine.resolve()))
        try:
            found: Callable[[Sequence[str]], int] = importlib.import_module("kosnode.publish.cli").main
        except ImportError as error:
            raise AnsibleActionFail(
                f"the publisher cannot be used by {sys.executable}: {error}. Install the Python package "
                "kosnode with cryptography and PyYAML there, or name the folder that holds it in engine"
            ) from None
        return found


class _Progress(io.StringIO):
    """Shows lines while the publisher works, and keeps them for a failure.

    Args:
        show: shows a line.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def write(self, text: str) -> int:
        for line in filter(None, text.splitlines()):
            if not line.startswith("error: "):  # which is in the answer as well
                self._show(line)
        return super().write(text)
