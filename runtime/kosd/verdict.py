"""Judges one unit from what systemd says of it. Pure: no clock, no file, no process."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kosd.systemctl import Shown
from kosd.units import Unit


class Status(str, Enum):
    """How something is, from good to bad."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILING = "failing"

    @property
    def rank(self) -> int:
        return list(Status).index(self)


@dataclass(frozen=True)
class Verdict:
    """A status with the reason in plain words."""

    status: Status
    detail: str


def worst(statuses: list[Status]) -> Status:
    return max(statuses, key=lambda status: status.rank, default=Status.OK)


def judge(
    unit: Unit,
    service: Shown,
    timer: Shown | None,
    *,
    unsettled_s: float,
    grace_s: float,
    restarts: int,
    limit: int,
) -> Verdict:
    """Says how a unit is.

    `unsettled_s` is how long it has not been active, in seconds; within `grace_s` it may still be starting.
    `restarts` is the number of automatic restarts within the window of which `limit` make a unit flapping.
    """
    verdict = _periodic(service, timer) if unit.timer else _lasting(service)
    if restarts >= limit and verdict.status is not Status.FAILING:
        verdict = Verdict(
            Status.FAILING, f"flapping: restarted {restarts} times in a short time; {verdict.detail}"
        )
    elif verdict.status is Status.FAILING and _may_be_starting(service, timer) and unsettled_s < grace_s:
        verdict = Verdict(Status.DEGRADED, f"{verdict.detail}; may still be starting")
    if verdict.status is Status.FAILING and not unit.required:
        return Verdict(Status.DEGRADED, verdict.detail)
    return verdict


def _lasting(service: Shown) -> Verdict:
    if service.load != "loaded":
        return Verdict(Status.FAILING, f"{service.id} is {service.load}")
    if service.active in ("active", "reloading", "refreshing"):
        return Verdict(Status.OK, f"{service.active} ({service.sub})")
    if service.sub == "auto-restart":
        return Verdict(Status.FAILING, f"ended ({_cause(service)}) and waits for its restart")
    if service.active == "failed":
        return Verdict(Status.FAILING, f"failed ({_cause(service)})")
    return Verdict(Status.FAILING, f"{service.active} ({service.sub})")


def _periodic(service: Shown, timer: Shown | None) -> Verdict:
    if service.load != "loaded":
        return Verdict(Status.FAILING, f"{service.id} is {service.load}")
    if timer is None or timer.load != "loaded":
        return Verdict(Status.FAILING, f"its timer is {timer.load if timer else 'unknown'}")
    if timer.active != "active":
        return Verdict(Status.FAILING, f"its timer is {timer.active}")
    if service.active == "failed" or service.result != "success":
        return Verdict(Status.FAILING, f"its last run failed ({_cause(service)})")
    if service.active in ("activating", "active", "deactivating"):
        return Verdict(Status.OK, "runs now")
    if service.started_usec is None:
        return Verdict(Status.OK, "waits for its first run")
    return Verdict(Status.OK, "its last run succeeded")


def _may_be_starting(service: Shown, timer: Shown | None) -> bool:
    if service.active == "failed" or service.sub == "auto-restart" or service.result != "success":
        return False
    return timer is None or timer.active != "failed"


def _cause(service: Shown) -> str:
    return (
        f"{service.result}, status {service.exit_status}" if service.result == "exit-code" else service.result
    )
