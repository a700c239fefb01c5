"""Answers whether the node is well, from what was observed; nothing here is constant."""

from __future__ import annotations

from dataclasses import dataclass

from kosd.config import Loaded
from kosd.identity import Fault
from kosd.observer import Sample
from kosd.verdict import Status, Verdict, worst


@dataclass(frozen=True)
class Facts:
    """All that health is judged from; times in seconds."""

    loaded: Loaded
    sample: Sample | None
    sample_age_s: float | None
    observer_error: str | None
    state_problem: str | None
    uptime_s: float
    fault: Fault | None


@dataclass(frozen=True)
class Health:
    """The whole answer: the worst of all checks, and each check by name."""

    status: Status
    checks: dict[str, Verdict]

    @property
    def reason(self) -> str | None:
        """Names the checks that are as bad as the whole, None when all is well."""
        if self.status is Status.OK:
            return None
        return "; ".join(
            f"{name}: {check.detail}" for name, check in self.checks.items() if check.status is self.status
        )


def evaluate(facts: Facts) -> Health:
    """Judges every check. No data is failing: what cannot be seen is not known to be well."""
    checks = {
        "observer": _observer(facts),
        "units": _inventory(facts.sample),
        "release": _release(facts.sample),
        "state": Verdict(Status.FAILING, facts.state_problem)
        if facts.state_problem
        else Verdict(Status.OK, "the state directory takes writes"),
        "config": _config(facts.loaded),
    }
    if facts.sample is not None:
        checks.update({f"unit:{name}": seen.verdict for name, seen in facts.sample.seen.items()})
    if facts.fault is not None:
        checks["fault"] = _fault(facts.fault, facts.uptime_s)
    return Health(worst([check.status for check in checks.values()]), checks)


def _observer(facts: Facts) -> Verdict:
    because = f": {facts.observer_error}" if facts.observer_error else ""
    if facts.sample_age_s is None:
        return Verdict(Status.FAILING, f"no sample yet{because}")
    age = f"last sample is {facts.sample_age_s:.1f} s old"
    if facts.sample_age_s > facts.loaded.config.stale_after_s:
        return Verdict(Status.FAILING, f"{age}, more than {facts.loaded.config.stale_after_s:g} s{because}")
    if because:
        return Verdict(Status.DEGRADED, f"{age}{because}")
    return Verdict(Status.OK, age)


def _inventory(sample: Sample | None) -> Verdict:
    if sample is None:
        return Verdict(Status.FAILING, "the units are not known yet")
    inventory = sample.inventory
    if inventory.problems:
        release_known = any(unit.required for unit in inventory.units.values())
        return Verdict(Status.DEGRADED if release_known else Status.FAILING, "; ".join(inventory.problems))
    if not inventory.units:
        return Verdict(Status.FAILING, "the release lists no unit")
    return Verdict(Status.OK, f"{len(inventory.units)} units are listed")


def _release(sample: Sample | None) -> Verdict:
    if sample is None:
        return Verdict(Status.DEGRADED, "the release is not known yet")
    release = sample.release
    if release.problem:
        return Verdict(Status.DEGRADED, release.problem)
    return Verdict(Status.OK, f"{release.name} {release.version}")


def _config(loaded: Loaded) -> Verdict:
    if loaded.problem:
        return Verdict(Status.DEGRADED, f"the last good configuration is in force; {loaded.problem}")
    if loaded.waits_for_start:
        return Verdict(Status.OK, f"takes effect at the next start: {', '.join(loaded.waits_for_start)}")
    return Verdict(Status.OK, "valid")


def _fault(fault: Fault, uptime_s: float) -> Verdict:
    after = fault.fail_health_after_s
    if uptime_s >= after:
        return Verdict(
            Status.FAILING, f"fault injection of a demo release: failing since {after:g} s after the start"
        )
    return Verdict(Status.OK, f"fault injection of a demo release: failing from {after:g} s after the start")
