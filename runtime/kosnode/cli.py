"""The command kosctl: one parser, from which man page, shell completion and reference are made as well."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__, command
from .command import Answer, Result
from .errors import InputError, RefusedError
from .lease import MAX_TTL_S
from .paths import NodePaths

if TYPE_CHECKING:
    from . import verbs

    Verb = Callable[[verbs.Context, argparse.Namespace], Result]

# What they do is written into the audit log.
CHANGING = "stage activate confirm revert recover rollback scrub gc refusals lease".split()
# Commands of other parts, each with the module whose `add_parser` adds it.
_OTHERS = {
    "host": ".host",
    "backup": ".backup.cli",
    "ledger": ".ledger.cli",
    "restore": ".restore.cli",
    "drill": ".drill.cli",
    "witness": ".backup.witness_cli",
    "kairoschain": ".kairoschain.cli",
}
_RELEASE = "a version of the node's channel, a root (12 digits of it or more), or `previous`"


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are InputErrors, so that they get the same answer as all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}")


def main(
    argv: Sequence[str] | None = None, *, make_context: Callable[[NodePaths], verbs.Context] | None = None
) -> int:
    """Run one command.

    Args:
        argv: the command line without the name of the program; that of the process by default.
        make_context: gives the node; tests pass their own.

    Returns:
        The exit code (docs/architecture.md, Command).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _set_signals()
    as_json = "--json" in words
    try:
        args = build_parser(words).parse_args(words)
    except InputError as error:
        answered = command.answer(_verb_in(words), _raiser(error), status=lambda: None)
        return _print(answered, as_json)
    if args.run is None:
        build_parser().print_help()
        return 0
    args.make_context = make_context or _node
    return int(args.run_outer(args)) if hasattr(args, "run_outer") else _run(args)


def run(context: verbs.Context, args: argparse.Namespace) -> Answer:
    """Run the verb that was parsed, and write it into the audit log where it changes something."""
    if hasattr(args, "func"):
        return _run_other(args)
    from . import verbs

    work: Verb = args.run
    looks = work is verbs.show_status
    answered = command.answer(
        args.verb,
        lambda: work(context, args),
        status=(lambda: None) if looks else context.status,
        debug=bool(args.debug),
    )
    if looks:
        answered.envelope["status"] = answered.envelope["result"]
    if args.verb in CHANGING and (answered.envelope["changed"] or not answered.envelope["ok"]):
        hidden = ("token", "verb", "json", "debug", "needs_lease")
        options = {
            key: value
            for key, value in vars(args).items()
            if key not in hidden and value not in (None, False)
        }
        verbs.audited(context, args.verb, options, answered.envelope)
    return answered


def build_parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """Return the parser of kosctl.

    Args:
        words: the command line, so that only what it needs is imported; None makes all of it.
    """
    shared = Parser(add_help=False)
    shared.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="answer with one JSON object"
    )
    shared.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error is from"
    )
    parser = Parser(
        prog="kosctl",
        description="Install, patch and roll back the releases of this node. Every switch is a trial that "
        "ends by itself in the last good release unless it is confirmed.",
        epilog="Exit codes: 0 done, 1 unexpected, 2 bad input, 3 refused, 4 no such release, 5 busy, "
        "6 no mirror, 7 disk, 8 reverted and healthy, 9 reverted and not healthy, 10 damaged, "
        "11 not healthy, 12 findings, 13 not trusted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kosctl {__version__}")
    parser.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR", help="directory that stands for /"
    )
    parser.add_argument("--json", action="store_true", help="answer with one JSON object on standard output")
    parser.add_argument("--debug", action="store_true", help="show where an unexpected error comes from")
    # Only the operator's gate sets this one; root on the console asks for no lease (break-glass).
    parser.set_defaults(run=None, verb=None, needs_lease=False)
    sub = parser.add_subparsers(metavar="VERB", title="verbs")
    if words is None or _first(words) not in _OTHERS:
        _Verbs(sub, shared).add_all()
    _add_others(sub, words)
    return parser


class _Verbs:
    """Adds the verbs to the parser."""

    def __init__(self, sub: Any, shared: argparse.ArgumentParser) -> None:
        self._sub = sub
        self._shared = shared

    def add_all(self) -> None:
        # A command of another part does without them.
        from . import verbs

        self._add("status", verbs.show_status)
        self._wish(self._add("plan", verbs.show_plan))
        stage = self._add("stage", verbs.stage)
        self._wish(stage)
        stage.set_defaults(lease=None)
        activate = self._add("activate", verbs.activate)
        self._wish(activate)
        self._trial(activate)
        confirm = self._add("confirm", verbs.confirm)
        confirm.add_argument("--token-file", metavar="FILE", help="file with the token; - is standard input")
        confirm.add_argument("--lease", metavar="ID", help="your lease of this node")
        confirm.set_defaults(token=None)
        self._add("revert", verbs.revert).set_defaults(lease=None)
        self._add("recover", verbs.recover)
        rollback = self._add("rollback", verbs.rollback)
        self._wish(rollback)
        self._trial(rollback)
        for name, work in (("verify", verbs.verify), ("scrub", verbs.scrub), ("gc", verbs.gc)):
            self._release(self._add(name, work))
        self._add("health", verbs.show_health)
        refusals = self._add("refusals", verbs.refusals)
        refusals.add_argument("--clear", metavar="ROOT", help="allow this release again")
        doctor = self._add("doctor", verbs.show_doctor)
        doctor.add_argument("--bundle", metavar="FILE", help="write one redacted archive for support")
        self._lease(self._add("lease", verbs.lease))
        self._add("units", verbs.show_units)
        shown = self._add("evidence", verbs.show_evidence)
        shown.add_argument("id", nargs="?", metavar="TRIAL", help="id of a trial; without it, all ids")
        watch = self._add("watch", verbs.watch_trial, hidden=True)
        watch.add_argument("--trial", required=True, metavar="ID", help="the trial to watch")
        operate = self._add("operate", None, hidden=True, text="Answer one request on standard input.")
        operate.set_defaults(run_outer=_operate)
        completion = self._add("completion", None, hidden=True, text="Print the completion of a shell.")
        completion.add_argument("shell", choices=["bash"])
        completion.set_defaults(run_outer=_completion)
        manual = self._add("manual", None, hidden=True, text="Print the man page.")
        manual.set_defaults(run_outer=_manual)

    def _add(
        self, name: str, work: Verb | None, *, hidden: bool = False, text: str = ""
    ) -> argparse.ArgumentParser:
        said = text or (work.__doc__ or "").strip()
        shown = {} if hidden else {"help": said}
        parser: argparse.ArgumentParser = self._sub.add_parser(
            name, description=said, parents=[self._shared], allow_abbrev=False, **shown
        )
        parser.set_defaults(run=work or _nothing, verb=name)
        return parser

    def _release(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("release", nargs="?", metavar="RELEASE", help=_RELEASE)

    def _wish(self, parser: argparse.ArgumentParser) -> None:
        self._release(parser)
        parser.add_argument(
            "--allow-downgrade", action="store_true", help="a lower version than the current one"
        )
        parser.add_argument("--accept-risk", action="store_true", help="a breaking or risky release")

    def _trial(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--bake-s", type=_seconds, metavar="N", help="seconds of health before it is confirmed"
        )
        parser.add_argument(
            "--deadline-s", type=_seconds, metavar="N", help="seconds until the trial ends by itself"
        )
        parser.add_argument("--lease", metavar="ID", help="your lease of this node")

    def _lease(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--take", metavar="ID", help="take or renew the lease of a rollout")
        parser.add_argument("--release", metavar="ID", help="give it back")
        parser.add_argument("--holder", metavar="NAME", help="who runs the rollout, for people")
        parser.add_argument(
            "--ttl-s", type=_seconds, default=3600, metavar="N", help=f"seconds, at most {MAX_TTL_S}"
        )


def leaves(
    parser: argparse.ArgumentParser, prefix: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every verb that has a help text with its parser, nested ones after their own."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            shown = {choice.dest for choice in action._choices_actions}
            for name, sub in action.choices.items():
                if name in shown:
                    yield prefix + name, sub
                    yield from leaves(sub, f"{prefix}{name} ")


def bash_completion(parser: argparse.ArgumentParser) -> str:
    """Return a completion script for bash: verbs first, then the options of the verb."""
    cases = []
    for name, sub in leaves(parser):
        words = [
            option for action in sub._actions for option in action.option_strings if option.startswith("--")
        ]
        words += [inner for inner, _ in leaves(sub) if " " not in inner]
        cases.append(f'        "{name}") words="{" ".join(sorted(words))}" ;;')
    top = " ".join(name for name, _ in leaves(parser) if " " not in name)
    return "\n".join(
        [
            "# Completion of kosctl for bash; made by `kosctl completion bash`.",
            "_kosctl() {",
            '    local verb="" word words',
            '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            '        case $word in -*) ;; *) verb="${verb:+$verb }$word" ;; esac',
            "    done",
            "    case $verb in",
            f'        "") words="--json --root --version {top}" ;;',
            *cases,
            '        *) words="" ;;',
            "    esac",
            '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}")',
            "}",
            "complete -o default -F _kosctl kosctl",
            "",
        ]
    )


def _run(args: argparse.Namespace) -> int:
    if hasattr(args, "func"):
        return _print(_run_other(args), bool(args.json))
    return _print(run(args.make_context(NodePaths(args.root)), args), bool(args.json))


def _run_other(args: argparse.Namespace) -> Answer:
    """Run a command that another part added, and that makes its own context."""
    return command.answer(
        args.verb, lambda: _adopted(args.func(args)), status=lambda: None, debug=bool(args.debug)
    )


def _node(paths: NodePaths) -> verbs.Context:
    from . import verbs

    return verbs.Context(paths)


def _first(words: Sequence[str]) -> str | None:
    """Return the verb of a command line; the value of --root is none."""
    rest = iter(words)
    for word in rest:
        if word == "--root":
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return None


def _adopted(done: Any) -> Result:
    """Take over the result of a command that another part added."""
    return Result(done.result, done.changed, done.actions, done.text)


def _add_others(sub: Any, words: Sequence[str] | None) -> None:
    """Add the commands of other parts: only those asked for, since they take long to import."""
    for name, module in _OTHERS.items():
        if words is None or name in words:
            import_module(module, __package__).add_parser(sub)
    if words is None or "repo" in words:
        try:
            from .publish import cli as publisher
        except ImportError as error:
            # A node has no publisher, and a controller may lack what it needs.
            if words is not None:
                raise InputError(f"`kosctl repo` is not there: {error}") from None
            return
        publisher.add_parser(sub)


def _operate(args: argparse.Namespace) -> int:
    from . import operate

    return operate.main(args.make_context(NodePaths(args.root)))


def _completion(args: argparse.Namespace) -> int:
    print(bash_completion(build_parser()), end="")
    return 0


def _manual(args: argparse.Namespace) -> int:
    from . import manpage

    print(manpage.page(build_parser()), end="")
    return 0


def _nothing(context: verbs.Context, args: argparse.Namespace) -> Result:
    raise RefusedError("this verb answers by itself")


def _print(answered: Answer, as_json: bool) -> int:
    error = answered.envelope["error"]
    if as_json:
        print(answered.json())
    elif error is not None:
        print(f"error: {error['message']}", file=sys.stderr)
    elif answered.text:
        print(answered.text)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Who asked has gone; what was done is done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return answered.exit


def _raiser(error: InputError) -> Callable[[], Result]:
    def work() -> Result:
        raise error

    return work


def _verb_in(words: Sequence[str]) -> str:
    known = {name for name, _ in leaves(build_parser([]))}
    return next((word for word in words if word in known), "kosctl")


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 86_400:
        raise argparse.ArgumentTypeError("must be a number of seconds from 1 to 86400")
    return int(text)


def _set_signals() -> None:
    signal.signal(signal.SIGTERM, _terminate)
    # A link that goes away must not stop a switch half way.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise command.Terminated
