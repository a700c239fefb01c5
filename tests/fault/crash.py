"""Kills kosctl on a node at its Nth call that matters, by strace's fault injection, and counts such calls."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fault.fault_node import KOSCTL, FaultNode

# Whatever makes, moves, removes or flushes something, takes the lock, or starts a thread or a program, by its
# kind. A question mark is for calls that some architectures do not have.
KINDS: Mapping[str, Sequence[str]] = {
    "rename": ("?rename", "?renameat", "renameat2"),
    "link": ("?link", "linkat"),
    "symlink": ("?symlink", "symlinkat"),
    "mkdir": ("?mkdir", "mkdirat"),
    "remove": ("?unlink", "unlinkat", "?rmdir"),
    "sync": ("fsync", "fdatasync"),
    "resize": ("ftruncate",),
    "write in place": ("pwrite64",),
    "lock": ("flock",),
    "chmod": ("?chmod", "fchmod", "fchmodat"),
    "chown": ("fchown",),
    "start": ("?vfork", "?fork", "clone", "?clone3"),
}
_KIND_OF = {call.lstrip("?"): kind for kind, calls in KINDS.items() for call in calls}
# The first thread alone, which does nearly everything: what it starts is not traced, so that a number means
# the same call in each run. Without --seccomp-bpf, which is faster and injects no signals.
STRACE = ("strace", "-qq", "-e", f"trace={','.join(call for calls in KINDS.values() for call in calls)}")
_LINE = re.compile(r"(\w+)\((.*)")
_JOURNAL = "/var/lib/kos/journal/journal.jsonl>"


@dataclass(frozen=True)
class Place:
    """A call at which kosctl can be killed.

    Attributes:
        number: among all calls.
        call: its name.
        nth: its number among the calls of this name, which is what strace counts.
        about: its arguments.
    """

    number: int
    call: str
    nth: int
    about: str

    @property
    def kind(self) -> str:
        return _KIND_OF[self.call]

    def __str__(self) -> str:
        return f"call {self.number} ({self.call})"


@dataclass(frozen=True)
class Course:
    """The calls of a run that nobody disturbed.

    Attributes:
        places: of the first thread of kosctl.
        states: the places at which kosctl has just made an entry of the journal durable, in order.
    """

    places: tuple[Place, ...]
    states: tuple[Place, ...]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(place.kind for place in self.places)

    def mixed(self, chance: random.Random) -> list[Place]:
        """Return the places in an order of chance."""
        return chance.sample(self.places, len(self.places))


def course(node: FaultNode, words: Sequence[str], stdin: bytes | None = None) -> Course:
    """Run kosctl undisturbed and return its course; it has to succeed."""
    trace = "/root/trace"
    answer = node.kosctl(*words, before=(*STRACE, "--decode-fds", "-o", trace), stdin=stdin)
    assert answer.exit == 0, answer
    places: list[Place] = []
    counts: Counter[str] = Counter()
    for line in node.run("cat", trace, check=True).stdout.splitlines():
        if match := _LINE.match(line):
            counts[match[1]] += 1
            places.append(Place(len(places) + 1, match[1], counts[match[1]], match[2]))
    # The next call is the first that does not happen any more.
    states = (
        after
        for place, after in itertools.pairwise(places)
        if place.call == "fsync" and _JOURNAL in place.about
    )
    return Course(tuple(places), tuple(states))


@contextlib.contextmanager
def stopped(
    node: FaultNode,
    prepare: Callable[[], object],
    words: Sequence[str],
    *,
    after: str,
    until: Callable[[], bool],
) -> Iterator[subprocess.Popen[bytes]]:
    """Have a kosctl in the midst of its work, with the lock in its hand; it goes on after the block.

    Args:
        prepare: puts the node into the state in which kosctl is run.
        words: of its command line.
        after: what stands in the call that it has just made when a signal stops it.
        until: says whether that call has been made.
    """
    prepare()
    places = course(node, words).places
    at = next(place for before, place in itertools.pairwise(places) if after in before.about)
    prepare()
    process = node.begin(*_injected("SIGSTOP", at), KOSCTL, *words, "--json")
    try:
        node.wait(until, f"kosctl {words[0]} has come to {at}")
        yield process
    finally:
        # It may be gone: killed, or the whole node with it.
        node.sh("read -r pid verb </run/kos/lock && kill -s CONT $pid", check=False)


def _injected(signal: str, at: Place) -> list[str]:
    """Return a strace command that sends a signal to what comes to a call, before it happens."""
    return [*STRACE, "-e", f"inject={at.call}:signal={signal}:when={at.nth}", "-o", "/dev/null"]


def kill(node: FaultNode, words: Sequence[str], at: Place, stdin: bytes | None = None) -> bool:
    """Run kosctl and kill it on entry to a call; return whether it came to that call."""
    done = node.run(*_injected("SIGKILL", at), KOSCTL, *words, "--json", stdin=stdin)
    return done.returncode == 137
