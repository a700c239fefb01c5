"""The command line of the test bed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from . import image, network
from .command import BedError, as_root
from .fleet import Bed, Plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0, that of the command run on a node, or 2 with one message."""
    options = _parser().parse_args(arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        return verb(options)
    except BedError as error:
        print(f"bed: {error}", file=sys.stderr)
        return 2


def _image(options: argparse.Namespace) -> int:
    for suite in options.suite or ["trixie"]:
        print(image.ensure(suite, _say))
    return 0


def _up(options: argparse.Namespace) -> int:
    started = time.monotonic()
    overrides = _pairs(value for value in options.suite if "=" in value)
    plain = [value for value in options.suite if "=" not in value]
    plan = Plan(
        inventory=options.inventory,
        nodes=options.nodes,
        mirrors=options.mirrors,
        zones=tuple(options.zones.split(",")),
        suite=plain[-1] if plain else "trixie",
        suites=overrides,
        small_disks=_pairs(options.small_disk),
    )
    nodes = Bed(options.name, _say).up(plan)
    _say(
        f"bed {options.name}: {len(nodes)} machines up in {time.monotonic() - started:.1f} s, "
        f"inventory in {options.inventory}"
    )
    return 0


def _down(options: argparse.Namespace) -> int:
    Bed(options.name, _say).down()
    _say(f"bed {options.name} is gone; the node image is kept")
    return 0


def _status(options: argparse.Namespace) -> int:
    bed = Bed(options.name, _say)
    nodes = bed.nodes()
    if not nodes:
        print(f"bed {options.name} does not exist")
        return 1
    cuts = bed.cuts()
    print(f"{'MACHINE':<10} {'ZONE':<6} {'ADDRESS':<16} {'SUITE':<10} {'STATE':<10} CUT FROM")
    for node in nodes:
        apart = sorted(end for pair in cuts if node.name in pair for end in pair - {node.name})
        print(
            f"{node.name:<10} {node.zone or '-':<6} {node.address:<16} {node.suite:<10} {node.state:<10} "
            f"{', '.join(apart) or '-'}"
        )
    return 0


def _kill(options: argparse.Namespace) -> int:
    Bed(options.name, _say).kill(options.node)
    _say(f"{options.node} is off")
    return 0


def _start(options: argparse.Namespace) -> int:
    _say(f"{options.node} is {Bed(options.name, _say).start(options.node)}")
    return 0


def _restart_hard(options: argparse.Namespace) -> int:
    _say(f"{options.node} is {Bed(options.name, _say).restart_hard(options.node)}")
    return 0


def _cut(options: argparse.Namespace) -> int:
    Bed(options.name, _say).cut(options.node, options.other)
    _say(f"{options.node} and {options.other} no longer hear each other")
    return 0


def _heal(options: argparse.Namespace) -> int:
    Bed(options.name, _say).heal(options.node, options.other)
    _say(f"{options.node} and {options.other} hear each other")
    return 0


def _exec(options: argparse.Namespace) -> int:
    bed = Bed(options.name, _say)
    bed.node(options.node)
    terminal = ["--interactive", "--tty"] if sys.stdin.isatty() else ["--interactive"]
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    argv = [*bed.exec_command(options.node, terminal), *command]
    return subprocess.run(as_root(argv), check=False).returncode


def _login(options: argparse.Namespace) -> int:
    command = Bed(options.name, _say).ssh_command(options.node)
    os.execvp(command[0], command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bed.py", description="Local fleets of containers that boot systemd."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(name: str, verb: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(verb=verb)
        if name != "image":
            added.add_argument("--name", default="local", help="the bed's name (default: local)")
        return added

    add("image", _image, "build the node image, unless it is there").add_argument(
        "--suite", action="append", choices=image.SUITES, help="may be repeated (default: trixie)"
    )
    up = add("up", _up, "make a bed anew and write its inventory")
    up.add_argument("--inventory", type=Path, required=True, help="folder for keys and hosts.yml")
    up.add_argument("--nodes", type=int, default=4)
    up.add_argument("--mirrors", type=int, default=1)
    up.add_argument("--zones", default="a,b", help="names separated by commas (default: a,b)")
    up.add_argument(
        "--suite", action="append", default=[], metavar="SUITE|NODE=SUITE", help="default: trixie"
    )
    up.add_argument(
        "--small-disk",
        action="append",
        default=[],
        metavar="NODE=SIZE",
        help="a file system of that size, such as 64M, under /var/lib/kos of a node",
    )
    add("down", _down, "remove a bed; the image stays")
    add("status", _status, "list the machines of a bed")
    for name, verb, text in (
        ("kill", _kill, "end every process of a node at once"),
        ("start", _start, "start a killed node"),
        ("restart-hard", _restart_hard, "kill a node and start it again"),
    ):
        add(name, verb, text).add_argument("node")
    for name, verb, text in (
        ("cut", _cut, "cut a node's link to the controller"),
        ("heal", _heal, "mend a link that was cut"),
    ):
        link = add(name, verb, text)
        link.add_argument("node")
        link.add_argument(
            "--from", dest="other", default=network.CONTROLLER, help="another of the bed's machines"
        )
    command = add("exec", _exec, "run a command on a node as root")
    command.add_argument("node")
    command.add_argument("command", nargs=argparse.REMAINDER)
    add("login", _login, "log in to a node over SSH").add_argument("node")
    return parser


def _pairs(values: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, sign, setting = value.partition("=")
        if not sign or not name or not setting:
            raise BedError(f"{value!r} is not of the form NODE=VALUE")
        pairs[name] = setting
    return pairs


def _say(line: str) -> None:
    print(line, flush=True)
