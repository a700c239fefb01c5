"""What a fleet costs and how long it is down: controller time, downtime, the way back from a bad release."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from .figures import Figure
from .fleet import KOSCTL, NODES, POLICY, Fleet, FleetError, Run, mitogen

CONTROLLER_ROUNDS = 3
DOWNTIME_ROUNDS = 5
RECOVERY_ROUNDS = 3
SERVICE = "kos-kosd.service"
# What a person does who knows at once what is wrong and has the command at hand.
BY_HAND = (
    "ln -sfn releases/{root} /var/lib/kos/by-hand && mv -T /var/lib/kos/by-hand /var/lib/kos/current"
    f" && systemctl daemon-reload && systemctl restart {SERVICE}"
)


def controller(fleet: Fleet) -> list[Figure]:
    """Measure the processor time of the controller for a run that changes nothing."""
    ours = _converged(fleet.site)
    fleet.change_to_stock()
    plain = _converged(fleet.stock)
    with_mitogen = _converged(lambda: fleet.stock(mitogen()))
    spent, waited = f"controller CPU of a converged site, {NODES} nodes", f"converged site, {NODES} nodes"
    goal = "at most 0.2 x of the peer"
    return [
        Figure(spent, ours.cpu_seconds, "CPU-s", "stock modules", plain.cpu_seconds, goal),
        Figure(spent, ours.cpu_seconds, "CPU-s", "stock modules with Mitogen", with_mitogen.cpu_seconds),
        Figure(waited, ours.seconds, "s", "stock modules", plain.seconds),
        Figure(waited, ours.seconds, "s", "stock modules with Mitogen", with_mitogen.seconds),
    ]


def downtime(fleet: Fleet) -> list[Figure]:
    """Measure how long /health is not answered well while a patch is switched to."""
    fleet.kosctl("stage", "1.1.0")
    patch, restart = [], []
    for _ in range(DOWNTIME_ROUNDS):
        patch.append(_gap(fleet, [KOSCTL, "activate", "1.1.0", "--json"]))
        _gap(fleet, [KOSCTL, "revert", "--json"])
        restart.append(_gap(fleet, ["systemctl", "restart", SERVICE]))
    peer = f"systemctl restart {SERVICE}"
    goal = "at most 1.3 x of the peer"
    return [
        Figure("downtime of a patch", statistics.median(patch), "ms", peer, statistics.median(restart), goal)
    ]


def recovery(fleet: Fleet) -> list[Figure]:
    """Measure the time from the first bad answer of a release until the old one is healthy again."""
    before = fleet.kosctl("status")["current"]["root"]
    sick = fleet.kosctl("stage", "1.2.0")["root"]
    alone = []
    for _ in range(RECOVERY_ROUNDS):
        begin, end = fleet.watched([KOSCTL, "activate", "1.2.0", "--json"], gaps=2).gaps[-1]
        alone.append(end - begin)
        last = fleet.kosctl("recover")
        if fleet.kosctl("status")["current"]["root"] != before:
            raise FleetError(f"the node did not fall back by itself: {last}")
        fleet.kosctl("refusals", "--clear", sick)
    by_hand = []
    for _ in range(RECOVERY_ROUNDS):
        seen = fleet.watched(["sh", "-c", BY_HAND.format(root=before)])
        by_hand.append(seen.gaps[-1][1] - seen.begun)
    return [
        Figure(
            "from bad health to healthy again",
            statistics.median(alone),
            "s",
            "by hand, from the moment it is known",
            statistics.median(by_hand),
            f"at most {POLICY['health_interval_s'] + 10} s",
        )
    ]


@dataclass(frozen=True)
class Spent:
    """Medians of several runs: processor time and wall time, in seconds."""

    cpu_seconds: float
    seconds: float


def _converged(play: Callable[[], Run]) -> Spent:
    runs = [play() for _ in range(CONTROLLER_ROUNDS)]
    for run in runs:
        if run.changed:
            raise FleetError(f"a run that should change nothing changed {run.changed} things: {run.said}")
    return Spent(
        statistics.median(run.cost.cpu_seconds for run in runs),
        statistics.median(run.cost.seconds for run in runs),
    )


def _gap(fleet: Fleet, command: list[str]) -> float:
    """Return the milliseconds without a healthy answer while a command ran."""
    return sum(end - begin for begin, end in fleet.watched(command).gaps) * 1000
