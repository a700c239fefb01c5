# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all action plugins share: one request to kosctl over the task's connection, and a fresh connection."""

from __future__ import annotations

import typing as t
from dataclasses import replace
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.connection import ConnectionBase

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl
from ansible_collections.kos.fleet.plugins.plugin_utils import _variables

# A link that is cut is noticed after 15 seconds, whatever the inventory's ssh_args say.
KEEPALIVE = "-o ServerAliveInterval=5 -o ServerAliveCountMax=3"


class NodeAction(ActionBase):
    """An action that talks to kosctl. It transfers no module, so a request costs one command over SSH."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Have SSH notice a cut link from the first connection on: later ones may be shared with it."""
        result = super().run(tmp, task_vars)
        self.keep_alive()
        return dict(result)

    def ask(
        self,
        verb: str,
        options: t.Mapping[str, t.Any] | None = None,
        *,
        secret: bool = False,
        exact: bool = False,
    ) -> _kosctl.Answer:
        """Ask kosctl on the node.

        Args:
            verb: what is asked.
            options: its options; None values are left out.
            secret: whether request or answer hold a token, which then stays out of the most verbose logs.
            exact: leave the result as it came, since it is signed; the caller lets no terminal have it.

        Raises:
            AnsibleConnectionFailure: the node cannot be reached.
            AnsibleActionFail: what came back is no answer.
        """
        was = self._play_context.no_log
        self._play_context.no_log = bool(was or secret)
        try:
            done = self._low_level_execute_command(
                _kosctl.command(), in_data=_kosctl.request(verb, options), executable="/bin/sh"
            )
        finally:
            self._play_context.no_log = was
        try:
            answer = _kosctl.parse(verb, done["rc"], done["stdout"], done["stderr"])
        except _kosctl.AnswerError as error:
            raise AnsibleActionFail(str(error)) from None
        return answer if exact else replace(answer, result=_kosctl.plain(answer.result))

    def host(self, words: str, spec: bytes | None, *, program: str = _kosctl.PROGRAM) -> dict[str, t.Any]:
        """Have kosctl shape the host (as root), or in check mode say how it would; return the task's result.

        Args:
            words: `apply`, or `remove --purge`.
            spec: what it reads on standard input.
            program: the kosctl that is asked.

        Raises:
            AnsibleConnectionFailure: the node cannot be reached.
            AnsibleActionFail: what came back is no answer.
        """
        check = " --check" if self._task.check_mode else ""
        return _kosctl.host_result(self.as_root(f"host {words}{check}", spec, program=program))

    def as_root(
        self, words: str, stdin: bytes | None = None, *, program: str = _kosctl.PROGRAM, secret: bool = False
    ) -> _kosctl.Answer:
        """Run one command of kosctl as the account of the connection, which has to be root.

        Args:
            words: verb and options, without `--json`.
            stdin: what it reads on standard input.
            program: the kosctl that is asked.
            secret: whether request or answer hold a secret, which then stays out of the most verbose logs.

        Raises:
            AnsibleConnectionFailure: the node cannot be reached.
            AnsibleActionFail: what came back is no answer.
        """
        was = self._play_context.no_log
        self._play_context.no_log = bool(was or secret)
        try:
            done = self._low_level_execute_command(
                f"[ -x {program} ] || exit {_kosctl.NOT_INSTALLED}; {program} {words} --json",
                in_data=stdin,
                executable="/bin/sh",
            )
        finally:
            self._play_context.no_log = was
        try:
            return _kosctl.parse(words.split()[0], done["rc"], done["stdout"], done["stderr"])
        except _kosctl.AnswerError as error:
            raise AnsibleActionFail(str(error)) from None

    def fresh(self) -> None:
        """Drop the connection that ControlPersist keeps, so that the next command makes a new one."""
        self.keep_alive()
        if type(self._connection).reset is not ConnectionBase.reset:  # a local connection has nothing to drop
            self._connection.reset()

    def keep_alive(self) -> None:
        """Make SSH notice a cut link instead of waiting for it for ever."""
        try:
            extra = self._connection.get_option("ssh_extra_args") or ""
        except KeyError:  # not a connection over SSH
            return
        if KEEPALIVE not in extra:
            self._connection.set_option("ssh_extra_args", f"{extra} {KEEPALIVE}".strip())


def as_result(answer: _kosctl.Answer) -> dict[str, t.Any]:
    """Return the task's result for an answer that is the whole story."""
    if not answer.ok:
        detail = {"result": answer.result} if answer.result else {}
        return {**_kosctl.failure(answer), **detail}
    return {"changed": answer.changed, "actions": answer.actions}


def refuse_unknown_variables(task: t.Any, task_vars: t.Mapping[str, t.Any]) -> None:
    """Refuse a misspelt or unknown variable that begins with the name of the role that the task belongs to.

    Raises:
        AnsibleActionFail: naming each, with a suggestion.
    """
    role = getattr(task, "_role", None)
    if role is None:
        return
    name = str(role.get_name()).rsplit(".", maxsplit=1)[-1]
    told = _variables.unknown(task_vars, f"{name}_", _variables.role_variables(Path(role._role_path)))
    if told:
        raise AnsibleActionFail("; ".join(told))
