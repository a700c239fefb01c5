"""Kills kosctl on a node at its Nth call that matters, by strace's fault injection, and counts such calls."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fault.fault_fleet import KOSCTL, FaultNode

# Whatever makes, moves, removes or flushes something, takes the lock, or starts a thread or a program. A
# question mark is for calls that some architectures do not have.
CALLS = (
    "?rename,?renameat,renameat2,?link,linkat,?unlink,unlinkat,?rmdir,?symlink,symlinkat,?mkdir,mkdirat,"
    "fsync,fdatasync,ftruncate,pwrite64,flock,?chmod,fchmod,fchmodat,fchown,?vfork,?fork,clone,?clone3"
)
# Without --seccomp-bpf, which is faster and injects no signals.
STRACE = ("strace", "--follow-forks", "-qq", "-e", f"trace={CALLS}")
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_JOURNAL = "/var/lib/kos/journal/journal.jsonl>"


@dataclass(frozen=True)
class Place:
    """A call at which kosctl can be killed.

    Attributes:
        number: among all calls of its thread.
        call: its name.
        nth: its number among the calls of this name, which is what strace counts, for each thread apart.
        about: its arguments.
    """

    number: int
    call: str
    nth: int
    about: str

    def __str__(self) -> str:
        return f"call {self.number} ({self.call})"


@dataclass(frozen=True)
class Course:
    """The calls of a run that nobody disturbed.

    Attributes:
        places: of the first thread of kosctl, which does nearly everything.
        states: the places at which kosctl has just made an entry of the journal durable, in order.
    """

    places: tuple[Place, ...]
    states: tuple[Place, ...]

    def some(self, chance: random.Random, count: int) -> list[Place]:
        """Return a sample of the places in the order of the run; all of them where `count` is large."""
        picked = chance.sample(range(len(self.places)), min(count, len(self.places)))
        return [self.places[index] for index in sorted(picked)]


def course(node: FaultNode, words: Sequence[str], stdin: bytes | None = None) -> Course:
    """Run kosctl undisturbed and return its course; it has to succeed."""
    trace = "/root/trace"
    answer = node.kosctl(*words, before=(*STRACE, "--decode-fds", "-o", trace), stdin=stdin)
    assert answer.exit == 0, answer
    calls: dict[str, list[Place]] = {}
    for line in node.run("cat", trace, check=True).stdout.splitlines():
        if match := _LINE.match(line):
            before = calls.setdefault(match[1], [])
            nth = sum(1 for place in before if place.call == match[2]) + 1
            before.append(Place(len(before) + 1, match[2], nth, match[3]))
    main = next(iter(calls.values()))
    # The next call is the first that does not happen any more.
    states = (
        after
        for place, after in itertools.pairwise(main)
        if place.call == "fsync" and _JOURNAL in place.about
    )
    return Course(tuple(main), tuple(states))


def injected(signal: str, at: Place) -> list[str]:
    """Return a strace command that sends a signal to what comes to a call, before it happens."""
    return [*STRACE, "-e", f"inject={at.call}:signal={signal}:when={at.nth}", "-o", "/dev/null"]


def kill(node: FaultNode, words: Sequence[str], at: Place, stdin: bytes | None = None) -> bool:
    """Run kosctl and kill it on entry to a call; return whether it came to that call."""
    done = node.run(*injected("SIGKILL", at), KOSCTL, *words, "--json", stdin=stdin)
    return done.returncode == 137
