"""What is asked of systemctl and systemd-run, and what their failures become; both are stand-ins here."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from kosnode.systemd import RealSystemd, StartError, SystemdError, SystemdTimeoutError, downtime_s

# Notes its arguments and its environment; what it says and does is in files beside it.
STAND_IN = """\
#!/bin/sh
here=${0%/*}
printf '%s' "${0##*/}" >>"$here/calls"
for word; do printf ' %s' "$word" >>"$here/calls"; done
echo >>"$here/calls"
env >"$here/env"
[ ! -e "$here/hang" ] || exec sleep 30
case " $* " in *" show "*) cat "$here/shown"; exit 0 ;; esac
[ ! -e "$here/fail" ] || { cat "$here/fail" >&2; exit 1; }
"""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("systemctl", "systemd-run"):
            (folder / name).write_text(STAND_IN)
            (folder / name).chmod(0o755)
        self.shows("")

    def shows(self, text: str) -> None:
        (self.folder / "shown").write_text(text)

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [shlex.split(line) for line in lines if " show " not in line]


@pytest.fixture(name="bench")
def fixture_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("KOS_TEST_TOKEN", "hush")
    return bench


def test_properties_come_back_by_the_name_that_was_asked_for(bench: Bench) -> None:
    bench.shows(
        "Id=kos-a.service\nActiveState=active\nExecStart=a=b\n\nId=kos-b.service\nActiveState=failed\n"
    )

    assert RealSystemd().show(["kos-a.service", "alias.service"], ["ActiveState", "ExecStart"]) == {
        "kos-a.service": {"ActiveState": "active", "ExecStart": "a=b"},
        "alias.service": {"ActiveState": "failed", "ExecStart": ""},
    }


def test_an_answer_about_fewer_units_than_were_asked_for_is_refused(bench: Bench) -> None:
    bench.shows("Id=kos-a.service\n")

    with pytest.raises(SystemdError, match="answered for 1 of 2"):
        RealSystemd().show(["kos-a.service", "kos-b.service"], ["Id"])


def test_units_are_restarted_in_one_transaction_and_nothing_is_asked_for_none(bench: Bench) -> None:
    RealSystemd().restart(["kos-a.service", "kos-b.timer"])
    RealSystemd().restart([])

    assert bench.calls() == [["systemctl", "restart", "--", "kos-a.service", "kos-b.timer"]]


def test_only_what_is_loaded_is_stopped(bench: Bench) -> None:
    bench.shows(
        "Id=a\nLoadState=loaded\nActiveState=active\n\nId=b\nLoadState=not-found\nActiveState=inactive\n"
    )

    RealSystemd().stop(["a", "b"])

    assert bench.calls() == [["systemctl", "stop", "--", "a"]]


def test_a_new_configuration_reaches_units_that_gave_up_over_the_old_one_and_none_that_was_stopped(
    bench: Bench,
) -> None:
    states = {"a": "active", "b": "failed", "c": "inactive", "d": "activating"}
    bench.shows("\n".join(f"Id={name}\nActiveState={state}\n" for name, state in states.items()))

    RealSystemd().reload(list(states))

    assert bench.calls() == [["systemctl", "reload-or-restart", "--", "a", "b", "d"]]


@pytest.mark.parametrize("state", ["inactive", "failed", "active", "deactivating"])
def test_a_unit_that_went_by_itself_is_stopped_and_one_that_still_runs_is_not(
    bench: Bench, state: str
) -> None:
    """A transient service is forgotten together with its timer, so it may be gone when its turn comes."""
    bench.shows(f"Id=a\nLoadState=loaded\nActiveState={state}\n")
    (bench.folder / "fail").write_text("Failed to stop a: Unit a not loaded.\n")

    if state in ("inactive", "failed"):
        RealSystemd().stop(["a"])
    else:
        with pytest.raises(StartError, match="not loaded"):
            RealSystemd().stop(["a"])


def test_a_unit_that_does_not_start_is_another_error_than_a_systemd_that_says_no(bench: Bench) -> None:
    (bench.folder / "fail").write_text("Job for kos-a.service failed.\nSee status.\n")

    with pytest.raises(StartError, match=r"systemctl restart ended with 1: See status\.") as caught:
        RealSystemd().restart(["kos-a.service"])
    assert caught.value.detail == {"verb": "restart", "units": ["kos-a.service"]}
    with pytest.raises(SystemdError) as refused:
        RealSystemd().daemon_reload()
    assert not isinstance(refused.value, StartError)


def test_a_systemd_that_hangs_does_not_hang_us(bench: Bench) -> None:
    (bench.folder / "hang").touch()

    with pytest.raises(SystemdTimeoutError, match=r"systemctl restart gave no answer within 0\.2 s"):
        RealSystemd().restart(["kos-a.service"], timeout_s=0.2)


def test_a_machine_without_systemd_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SystemdError, match="systemctl cannot be started: No such file"):
        RealSystemd().daemon_reload()


def test_a_timer_replaces_what_is_left_of_an_earlier_one(bench: Bench) -> None:
    block = "Id={}\nLoadState={}\nActiveState={}\n"
    bench.shows(
        block.format("kos-deadman.timer", "loaded", "active")
        + "\n"
        + block.format("kos-deadman.service", "loaded", "failed")
    )

    argv = ["/opt/kos/fallback", "--reason", "deadline"]
    RealSystemd().run_transient_timer("kos-deadman", 180, argv)

    # A fallback that fails says "run me again": its service, not its timer, is restarted until it succeeds.
    again = ["--property=Restart=on-failure", "--property=RestartSec=5", "--property=StartLimitIntervalSec=0"]
    run = ["systemd-run", "--quiet", "--collect", "--unit=kos-deadman", "--on-active=180s"]
    assert bench.calls() == [
        ["systemctl", "stop", "--", "kos-deadman.timer", "kos-deadman.service"],
        ["systemctl", "reset-failed", "--", "kos-deadman.service"],
        [*run, *again, "--timer-property=AccuracySec=100ms", "--", *argv],
    ]


def test_programs_of_systemd_get_nothing_of_our_environment(bench: Bench) -> None:
    RealSystemd().daemon_reload()

    assert "hush" not in (bench.folder / "env").read_text()


@pytest.mark.parametrize(
    ("exited", "entered", "expected"),
    [("1000000", "1250000", 0.25), ("0", "500", None), ("2000000", "1000000", None), ("", "", None)],
)
def test_downtime_is_the_time_between_leaving_and_reaching_active(
    exited: str, entered: str, expected: float | None
) -> None:
    shown = {"ActiveExitTimestampMonotonic": exited, "ActiveEnterTimestampMonotonic": entered}

    assert downtime_s(shown) == expected
