"""What the state machine keeps on disk: journal, lock, lease, refusals, audit, evidence, copies of state."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.kosnode.trial.test_trial_killed import killed_at
from unit.kosnode.trial.trial_node import FakeClock

from kosnode import boot, evidence, record, state
from kosnode.audit import Audit, caller
from kosnode.errors import BusyError, DamagedError, DiskError, InputError, NotFoundError, RefusedError
from kosnode.journal import Journal, JsonLines
from kosnode.lease import Leases
from kosnode.lock import Lock, read_holder
from kosnode.paths import NodePaths
from kosnode.record import Trial
from kosnode.refusals import Refusal, Refusals

rounds = settings(
    max_examples=int(os.environ.get("KOS_ROUNDS", "40")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


# Journal.


def _journal(folder: Path, **options: int) -> Journal:
    return Journal(folder / "journal.jsonl", FakeClock(), **options)


def test_entries_are_numbered_through_restarts(tmp_path: Path) -> None:
    for number in range(1, 4):
        assert _journal(tmp_path).append("FETCHED", release="a")["seq"] == number


@rounds
@given(cut=st.integers(min_value=1, max_value=200))
def test_a_line_torn_anywhere_is_cut_off_by_the_next_entry(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    journal = _journal(tmp_path)
    journal.append("FETCHED", release="a")
    whole = path.stat().st_size
    journal.append("VERIFIED", release="a")
    os.truncate(path, max(whole, path.stat().st_size - cut))
    torn = path.stat().st_size
    assert [one["state"] for one in journal.entries()] == ["FETCHED"] if torn > whole else True
    journal.append("TRIAL", release="b")
    assert [one["state"] for one in journal.entries()][-1] == "TRIAL"
    assert journal.damaged() == 0
    assert [one["seq"] for one in journal.entries()] == list(range(1, len(journal.entries()) + 1))


def test_nothing_of_a_long_torn_line_stays_behind_a_short_entry(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "x")
    log.append({"a": 1})
    with log.path.open("ab") as stream:
        stream.write(b'{"torn":"' + b"x" * 5000)
    log.append({"b": 2})
    assert list(log.entries()) == [{"a": 1}, {"b": 2}]
    assert log.damaged() == 0


def test_a_damaged_line_in_the_middle_is_left_out_and_counted(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    for name in ("FETCHED", "VERIFIED", "TRIAL"):
        journal.append(name, release="a")
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"VERIFIED"', b'"VERI\x00IED'))
    assert [one["state"] for one in journal.entries()] == ["FETCHED", "TRIAL"]
    assert journal.damaged() == 1
    assert journal.append("CONFIRMED", release="a")["seq"] == 4


def test_rotation_keeps_the_newest_and_goes_on_counting(tmp_path: Path) -> None:
    journal = _journal(tmp_path, max_bytes=400, keep=2)
    for _ in range(40):
        journal.append("FETCHED", release="a" * 40)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "journal.1.jsonl",
        "journal.2.jsonl",
        "journal.jsonl",
    ]
    numbers = [one["seq"] for one in journal.entries()]
    assert numbers == list(range(numbers[0], 41))
    last = journal.last()
    assert last is not None
    assert last["seq"] == 40


def test_a_rotation_that_was_killed_loses_nothing(tmp_path: Path) -> None:
    journal = _journal(tmp_path, max_bytes=400, keep=2)
    for _ in range(8):
        journal.append("FETCHED", release="a" * 40)
    (tmp_path / "journal.jsonl").replace(tmp_path / "journal.1.jsonl")
    before = journal.entries()[-1]["seq"]
    assert journal.append("VERIFIED", release="a")["seq"] == before + 1


def test_an_entry_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bytes"):
        JsonLines(tmp_path / "x").append({"a": "x" * 100_000})


# Lock.


def test_busy_names_process_and_verb(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock").hold("activate"):
        with pytest.raises(BusyError, match=rf"process {os.getpid()} \(activate\)"):
            Lock(tmp_path / "lock").acquire("stage")
        assert read_holder(tmp_path / "lock") == (os.getpid(), "activate")
    Lock(tmp_path / "lock").acquire("stage")


def test_no_other_account_can_take_the_lock_and_keep_every_command_away(tmp_path: Path) -> None:
    """C18."""
    path = tmp_path / "lock"
    path.touch(0o644)  # as an earlier kosctl made it
    with Lock(path).hold("activate"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.flock(f,2);"
        "print('held',flush=True); time.sleep(99)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(BusyError):
        Lock(tmp_path / "lock").acquire("stage")
    holder.kill()
    holder.wait()
    Lock(tmp_path / "lock").acquire("stage")


def test_a_recovery_is_waited_for_and_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import fcntl,sys,time; f=open(sys.argv[1],'a+'); fcntl.flock(f,2); f.truncate(0);"
        "f.write('1 recover\\n'); f.flush(); print('held',flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    holder.stdout.readline()
    with pytest.raises(BusyError):
        Lock(path).acquire("stage")
    holder.stdin.write(b"go\n")
    holder.stdin.flush()
    Lock(path).acquire("stage", patient=("recover",), patience_s=30)
    holder.wait()


def test_the_lock_is_not_handed_to_children(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    lock.acquire("activate")
    child = subprocess.Popen(["sleep", "30"])
    lock.release()
    with (tmp_path / "lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    child.kill()
    child.wait()


# Lease.


def test_a_lease_is_renewed_by_its_own_id_and_ends_by_its_time(tmp_path: Path) -> None:
    clock = FakeClock()
    leases = Leases(tmp_path / "lease.json", clock)
    leases.take("one", "alice", 100)
    clock.forward(90)
    leases.take("one", "alice", 100)
    clock.forward(90)
    with pytest.raises(RefusedError, match=r"alice \(lease one\) for another 10 s"):
        leases.take("two", "bob", 100)
    clock.forward(11)
    assert leases.current() is None
    assert leases.stale()
    assert leases.take("two", "bob", 100).holder == "bob"


def test_a_clock_that_jumps_does_not_end_a_lease_in_its_boot(tmp_path: Path) -> None:
    clock = FakeClock()
    leases = Leases(tmp_path / "lease.json", clock)
    leases.take("one", "alice", 100)
    clock.wall = clock.wall.replace(year=2036)
    assert leases.current() is not None


@pytest.mark.parametrize(
    ("year", "gone"), [(2026, 50), (1970, 50)], ids=["clock right", "clock without battery"]
)
def test_a_lease_lasts_over_a_boot_and_never_longer_than_its_time_after_it(
    tmp_path: Path, year: int, gone: int
) -> None:
    clock = FakeClock()
    Leases(tmp_path / "lease.json", clock).take("one", "alice", 100)
    later = FakeClock(wall=clock.wall.replace(year=year), identity="another:1", seconds=50, since_boot=gone)
    leases = Leases(tmp_path / "lease.json", later)
    lease = leases.current()
    assert lease is not None
    assert leases.remaining_s(lease) == 50
    later.forward(51)
    assert leases.current() is None


def test_anothers_lease_is_not_given_back(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "lease.json", FakeClock())
    leases.take("one", "alice", 100)
    with pytest.raises(RefusedError):
        leases.drop("two")
    assert leases.drop("one")
    assert not leases.drop("one")


@pytest.mark.parametrize(
    ("lease", "holder", "ttl", "key"),
    [("../x", "a", 9, "take"), ("x", "a\n", 9, "holder"), ("x", "a", 0, "ttl_s"), ("x", "a", 10**9, "ttl_s")],
)
def test_a_lease_with_a_bad_value_names_its_key(
    tmp_path: Path, lease: str, holder: str, ttl: int, key: str
) -> None:
    with pytest.raises(InputError) as caught:
        Leases(tmp_path / "lease.json", FakeClock()).take(lease, holder, ttl)
    assert caught.value.key == key


# Refusals.


def _refusal(root: str) -> Refusal:
    return Refusal(root, "kos", "1.1.0", "http 500", "2026-11-21T12:00:00Z", "t-1")


def test_a_refused_release_is_cleared_by_the_beginning_of_its_root(tmp_path: Path) -> None:
    refusals = Refusals(tmp_path / "refusals.json")
    refusals.add(_refusal("a" * 64))
    with pytest.raises(RefusedError, match="http 500"):
        refusals.check("a" * 64)
    refusals.check("b" * 64)
    assert refusals.clear("a" * 12)
    assert not refusals.clear("a" * 12)
    refusals.check("a" * 64)


@pytest.mark.parametrize("name", ["a" * 11, "A" * 12, "../" * 8])
def test_a_refusal_is_named_by_a_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        Refusals(tmp_path / "refusals.json").clear(name)


def test_a_list_that_cannot_be_read_lets_nothing_through(tmp_path: Path) -> None:
    (tmp_path / "refusals.json").write_text('{"refused": [{"root": 1}]}')
    with pytest.raises(DamagedError):
        Refusals(tmp_path / "refusals.json").check("a" * 64)


# Audit.


def test_a_line_that_is_changed_removed_or_put_in_breaks_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = Audit(path, FakeClock())
    for number in range(4):
        log.append({"verb": "stage", "number": number}, {"user": "root"})
    lines = path.read_bytes().splitlines(keepends=True)
    assert log.verify() == 4
    for broken in (
        [lines[0], lines[1].replace(b'"number":1', b'"number":9'), *lines[2:]],
        [lines[0], *lines[2:]],
        [lines[0], lines[1], lines[1], *lines[2:]],
        [lines[1], lines[0], *lines[2:]],
    ):
        path.write_bytes(b"".join(broken))
        with pytest.raises(DamagedError, match=r"line \d does not follow"):
            log.verify()


def test_a_torn_audit_line_is_cut_off_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = Audit(path, FakeClock())
    log.append({"verb": "stage"}, {})
    log.append({"verb": "activate"}, {})
    os.truncate(path, path.stat().st_size - 7)
    log.append({"verb": "confirm"}, {})
    assert log.verify() == 2


def _rotated_log(folder: Path, files: int) -> Audit:
    """Return a log that begins a new file with each line and keeps three old ones, with so many files."""
    log = Audit(folder / "audit.jsonl", FakeClock(), max_bytes=1, keep=3)
    for number in range(files):
        log.append({"number": number}, {})
    return log


def _numbers(log: Audit) -> list[int]:
    return [entry["what"]["number"] for entry in log.newest(100)]


def test_the_audit_chain_goes_on_from_one_file_to_the_next(tmp_path: Path) -> None:
    log = _rotated_log(tmp_path, 4)
    assert [path.name for path in log.files()] == [
        *("audit.jsonl.3", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl")
    ]
    assert (log.verify(), _numbers(log), log.newest(1)[0]["what"]) == (4, [0, 1, 2, 3], {"number": 3})
    assert {path.stat().st_mode & 0o777 for path in log.files()} == {0o640}


def test_the_audit_log_keeps_a_bounded_number_of_files(tmp_path: Path) -> None:
    log = _rotated_log(tmp_path, 9)
    assert (len(log.files()), log.verify(), _numbers(log)) == (4, 4, [5, 6, 7, 8])


def test_a_new_file_is_begun_when_the_old_one_is_full_and_not_before(tmp_path: Path) -> None:
    log = Audit(tmp_path / "audit.jsonl", FakeClock(), max_bytes=1000)
    for number in range(10):
        log.append({"number": number}, {})
    full = [path.stat().st_size for path in log.files()[:-1]]
    assert full
    assert all(1000 <= size < 1500 for size in full)
    assert (log.verify(), _numbers(log)) == (10, list(range(10)))


@pytest.mark.parametrize("name", ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"])
def test_a_file_of_the_audit_log_that_was_changed_is_named(tmp_path: Path, name: str) -> None:
    log = _rotated_log(tmp_path, 4)
    path = tmp_path / name
    path.write_bytes(path.read_bytes().replace(b'"number":', b'"number":7'))
    with pytest.raises(DamagedError, match=rf"{name}: line 1 does not follow"):
        log.verify()


def test_a_file_taken_out_of_the_audit_log_breaks_the_chain(tmp_path: Path) -> None:
    _rotated_log(tmp_path, 6).files()[1].unlink()
    with pytest.raises(DamagedError, match="does not follow"):
        _rotated_log(tmp_path, 0).verify()
    short = tmp_path / "short"
    log = _rotated_log(short, 3)
    log.files()[0].unlink()
    with pytest.raises(DamagedError, match=r"audit\.jsonl\.1: line 1 does not follow"):
        log.verify()


@pytest.mark.parametrize("files", [1, 3, 4, 9])
def test_a_rotation_of_the_audit_log_that_is_killed_loses_nothing(tmp_path: Path, files: int) -> None:
    """Killed before each change of a name, and the next append in the same place as well."""
    for place in range(1, 20):
        folder = tmp_path / str(place)
        log = _rotated_log(folder, files)
        before = _numbers(log)
        killed, _ = killed_at(place, partial(log.append, {"number": files}, {}))
        if not killed:
            break
        # The oldest may have made room already, as it does where nothing is killed.
        assert _numbers(log) in (before, before[1:] if files > 3 else before)
        assert log.verify() == len(_numbers(log))
        killed_at(place, partial(log.append, {"number": files}, {}))
        log.append({"number": files + 1}, {})
        assert log.verify() == len(_numbers(log))
        assert [number for number in _numbers(log) if number < files][-2:] == before[-2:]
    assert place > 3, "no place was found where a rotation could be killed"


def test_many_who_write_the_audit_log_at_once_break_no_chain(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from kosnode import boot; from kosnode.audit import Audit\n"
        "log = Audit(Path(sys.argv[1]), boot.SystemClock(), max_bytes=2000, keep=50)\n"
        "for number in range(25): log.append({'number': number}, {'pid': sys.argv[2]}); log.verify()"
    )
    path = tmp_path / "audit.jsonl"
    env = {**os.environ, "PYTHONPATH": str(Path(evidence.__file__).parents[1])}
    writers = [subprocess.Popen([sys.executable, "-c", script, path, str(one)], env=env) for one in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    log = Audit(path, FakeClock(), max_bytes=2000, keep=50)
    assert (len(log.files()) > 2, log.verify()) == (True, 75)


def test_the_caller_behind_sudo_and_ssh_is_named() -> None:
    who = caller({"SUDO_USER": "kosops", "SSH_CONNECTION": "192.0.2.7 5000 192.0.2.1 22"})
    assert who["sudo_user"] == "kosops"
    assert who["from"] == "192.0.2.7"
    assert who["uid"] == os.getuid()


# Boot and session.


def test_the_boot_is_named_as_fallback_names_it() -> None:
    stat = Path("/proc/1/stat").read_text()
    ticks = stat[stat.rindex(")") + 2 :].split()[19]
    assert boot.boot_identity() == f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{ticks}"


def _process(proc: Path, pid: int, name: str, parent: int, session: int, ticks: int) -> None:
    (proc / str(pid)).mkdir(parents=True)
    fields = ["S", str(parent), "1", str(session), *["0"] * 15, str(ticks), "0"]
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}")


def _seconds(ticks: int) -> float:
    return ticks / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("server", ["sshd", "sshd-session", "sshd: root@notty"])
def test_the_nearest_ssh_server_stands_for_a_session(tmp_path: Path, server: str) -> None:
    _process(tmp_path, 1, "systemd", 0, 1, 10)
    _process(tmp_path, 50, "sshd", 1, 50, 100)
    _process(tmp_path, 60, server, 50, 60, 5000)
    _process(tmp_path, 61, "sh", 60, 61, 9000)
    _process(tmp_path, 62, "sudo (x) y", 61, 61, 9001)
    _process(tmp_path, 63, "kosctl", 62, 63, 9002)
    found = boot.session(63, tmp_path)
    assert (found.kind, found.pid, found.started) == ("ssh", 60, _seconds(5000))


def test_on_a_console_the_session_leader_stands_for_it(tmp_path: Path) -> None:
    _process(tmp_path, 1, "init", 0, 1, 10)
    _process(tmp_path, 70, "bash", 1, 70, 700)
    _process(tmp_path, 71, "kosctl", 70, 70, 900)
    assert boot.session(71, tmp_path) == boot.Session("local", 70, _seconds(700))


def test_where_the_leader_is_gone_the_oldest_of_its_session_stands_for_it(tmp_path: Path) -> None:
    _process(tmp_path, 1, "init", 0, 1, 10)
    _process(tmp_path, 71, "sh", 1, 70, 800)
    _process(tmp_path, 72, "kosctl", 71, 70, 900)
    assert boot.session(72, tmp_path) == boot.Session("local", 71, _seconds(800))


def test_a_session_of_this_very_process_began_in_the_past() -> None:
    assert 0 < boot.session().started <= time.clock_gettime(time.CLOCK_BOOTTIME)


# Trial as text.


TRIAL = Trial("t-1", "a" * 64, "none", "b:1", 1, 2, ("kos-a.service",), (), ("a",))


def test_a_trial_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "trial").write_bytes(TRIAL.text())
    assert record.read_trial(tmp_path / "trial") == TRIAL


@pytest.mark.parametrize("unit", ["kos-a.service;reboot", "a\nb", "$(x)", "a=b", "`x`"])
def test_what_a_shell_could_misread_is_not_written(unit: str) -> None:
    with pytest.raises(InputError):
        replace(TRIAL, stop=(unit,)).text()


@rounds
@given(data=st.binary(max_size=200))
def test_no_bytes_are_taken_for_a_trial(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "trial").write_bytes(data)
    with pytest.raises(DamagedError):
        record.read_trial(tmp_path / "trial")
    assert record.read_outcome(tmp_path / "trial") is None
    assert record.read_details(tmp_path / "trial") is None


# Copies of state.


def test_a_copy_has_contents_modes_owners_times_and_links(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep/data").write_bytes(os.urandom(100_000))
    (source / "deep/data").chmod(0o640)
    (source / "deep/link").symlink_to("../nowhere")
    os.utime(source / "deep/data", ns=(10**18, 10**18 + 7))
    os.utime(source / "deep", ns=(10**18, 10**18 + 9))
    os.mkfifo(source / "pipe")
    state.copy_tree(source, tmp_path / "copy")
    copy = tmp_path / "copy"
    assert (copy / "deep/data").read_bytes() == (source / "deep/data").read_bytes()
    for name in ("deep", "deep/data"):
        was, now = (source / name).stat(), (copy / name).stat()
        assert (now.st_mode, now.st_uid, now.st_gid, now.st_mtime_ns) == (
            *(was.st_mode, was.st_uid, was.st_gid, was.st_mtime_ns),
        )
    assert (copy / "deep/link").readlink() == Path("../nowhere")
    assert not (copy / "pipe").exists()


def test_a_copy_works_where_blocks_cannot_be_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*arguments: object) -> int:
        raise OSError(95, "not supported")

    (tmp_path / "a").write_bytes(b"x" * 50_000)
    monkeypatch.setattr(os, "copy_file_range", cannot)
    state.copy_tree(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"x" * 50_000


def test_a_full_disk_is_named_with_the_bytes_that_are_missing(tmp_path: Path) -> None:
    paths = NodePaths(tmp_path)
    (paths.state / "a").mkdir(parents=True)
    (paths.state / "a/data").write_bytes(b"x" * 100)
    with pytest.raises(DiskError, match=r"takes 100 bytes .* bytes are missing"):
        state.check_room(paths, ["a"], reserve=1 << 60)
    assert state.check_room(paths, [], reserve=1 << 60)[0] == 0


def test_a_unit_that_removes_a_file_while_its_state_is_counted_spoils_no_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = NodePaths(tmp_path)
    (paths.state / "a").mkdir(parents=True)
    (paths.state / "a/data").write_bytes(b"12345")
    monkeypatch.setattr(os, "walk", lambda top: [(str(top), [], ["data-journal", "data"])])
    assert state.size(paths, ["a"]) == 5


# Evidence.


def test_evidence_is_bounded_indexed_redacted_and_readable(tmp_path: Path) -> None:
    folder = tmp_path / "t-1"
    (folder / "state-a").mkdir(parents=True)
    (folder / "state-a/private").write_text("the unit's own")
    log = tmp_path / "log"
    log.write_text("password=hunter2\n" + "x" * 500_000 + "\nthe end\n")
    evidence.collect(folder, documents={"outcome.json": {"reason": "health"}}, units=[])
    log.rename(folder / "some.log")
    shown = evidence.read(tmp_path, "t-1")
    assert set(shown["files"]) == {"index.json", "outcome.json", "some.log", "versions.json"}
    assert shown["files"]["some.log"].endswith("the end\n")
    assert len(shown["files"]["some.log"]) <= evidence.MAX_FILE_BYTES
    assert "hunter2" not in str(shown)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "text", ["x", "a.", "key", "token=", "http://", "-----BEGIN A-----", 'key="', "bearer "]
)
def test_no_log_takes_long_to_redact(text: str) -> None:
    """A unit writes its own log: one made to be hard to search must not hold up a revert."""
    hard = f"{text!r} * (MAX_FILE_BYTES // {len(text)})"
    code = f"from kosnode.evidence import MAX_FILE_BYTES, redact; redact({hard})"
    env = {**os.environ, "PYTHONPATH": str(Path(evidence.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], env=env, timeout=30, check=True)


def test_evidence_of_no_trial_is_not_found_and_no_path_is_a_trial(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        evidence.read(tmp_path, "t-9")
    with pytest.raises(InputError):
        evidence.read(tmp_path, "../x")


def test_only_the_newest_evidence_stays(tmp_path: Path) -> None:
    for number in range(13):
        (tmp_path / f"20261121T12{number:02}00Z-0").mkdir()
    assert len(evidence.prune(tmp_path, keep=10)) == 3
    assert evidence.ids(tmp_path)[0] == "20261121T120300Z-0"
