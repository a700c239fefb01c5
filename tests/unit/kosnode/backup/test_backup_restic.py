"""restic's exit codes, words and silences, each turned into one error (facts of 0.14 to 0.19)."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from kosnode.backup import restic
from kosnode.backup.config import Repository
from kosnode.backup.restic import Access, AccessError, BackendError, Restic, ResticError
from kosnode.errors import (
    BusyError,
    DamagedError,
    DiskError,
    InputError,
    KosError,
    NotFoundError,
    TrustError,
)

SUMMARY = json.dumps(
    {
        **{"message_type": "summary", "snapshot_id": "f" * 64, "data_added_packed": 7},
        **{"total_files_processed": 2, "total_bytes_processed": 9},
    }
)


class FakeRestic:
    """A program that stands for restic: says what a test wants, and ends as it wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "restic"

    def says(self, out: str = "", err: str = "", code: int = 0, script: str = "") -> None:
        (self.folder / "out").write_text(out)
        (self.folder / "err").write_text(err)
        here = self.folder
        self.path.write_text(
            f'#!/bin/sh\necho "$@" >> {here}/argv; env > {here}/env\n{script}\n'
            f"cat {here}/out; cat {here}/err >&2\nexit {code}\n"
        )
        self.path.chmod(0o755)

    def argv(self) -> list[str]:
        return (self.folder / "argv").read_text().split("\n")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRestic:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    made = FakeRestic(folder)
    made.says()
    return made


@pytest.fixture
def store(tmp_path: Path) -> Restic:
    (tmp_path / "password").write_text("sesame")
    access = Access(tmp_path / "password", {"AWS_SECRET_ACCESS_KEY": "open"}, tmp_path / "cache", "ab" * 32)
    return Restic(Repository("main", "/srv/r"), access, timeout_s=1)


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (1, "Fatal: something else", ResticError),
        (2, "panic: runtime error", ResticError),
        (10, "Fatal: repository does not exist", NotFoundError),
        (11, "unable to create lock in backend: repository is already locked by PID 7", BusyError),
        (12, "Fatal: wrong password or no key found", TrustError),
        (130, "", ResticError),
        (99, "what is this", ResticError),
        (1, "Save(<data/1>) failed: write /r: no space left on device", DiskError),
        (1, 'Head "http://h/config": dial tcp 127.0.0.1:9: connect: connection refused', BackendError),
        (
            1,
            "Fatal: unable to open config file: unexpected HTTP response (502): 502 Bad Gateway",
            BackendError,
        ),
        (1, "unable to create lock in backend: client.PutObject: Access Denied.", AccessError),
        (
            1,
            "Fatal: unable to open config file: unexpected HTTP response (401): 401 Unauthorized",
            AccessError,
        ),
        (1, "error: ciphertext verification failed", DamagedError),
        (1, "Load(<data/12>, 0, 0) failed: open /r/data/12: no such file or directory", DamagedError),
    ],
)
@pytest.mark.parametrize("form", ["text", "json", "mixed"])
def test_each_way_to_fail_has_an_error_of_its_own(
    fake: FakeRestic, store: Restic, code: int, words: str, kind: type[KosError], form: str
) -> None:
    line = json.dumps({"message_type": "exit_error", "code": code, "message": words})
    fake.says(err={"text": words, "json": line, "mixed": f"warning: x\n{line}\n"}[form], code=code)
    with pytest.raises(kind) as caught:
        store.identity()
    assert type(caught.value) is kind


def test_a_success_without_a_snapshot_is_a_failure(fake: FakeRestic, store: Restic, tmp_path: Path) -> None:
    fake.says(out="no summary\n")
    with pytest.raises(ResticError, match="made no snapshot"):
        store.backup([tmp_path], host="n1", tags=[])


def test_the_invented_snapshot_of_a_dry_run_is_none(fake: FakeRestic, store: Restic, tmp_path: Path) -> None:
    fake.says(out=json.dumps({**json.loads(SUMMARY), "dry_run": True}) + "\n")
    with pytest.raises(ResticError, match="made no snapshot"):
        store.backup([tmp_path], host="n1", tags=[])


def test_a_path_that_is_not_there_is_found_before_restic_leaves_it_out(
    fake: FakeRestic, store: Restic, tmp_path: Path
) -> None:
    fake.says(out=SUMMARY + "\n")
    with pytest.raises(NotFoundError, match="gone"):
        store.backup([tmp_path, tmp_path / "gone"], host="n1", tags=[])
    assert not (fake.folder / "argv").exists()


def test_a_partial_snapshot_says_what_it_lacks(fake: FakeRestic, store: Restic, tmp_path: Path) -> None:
    error = {"message_type": "error", "error": {"message": "permission denied"}, "item": "/srv/x"}
    fake.says(out=f"text in between\n{SUMMARY}\n", err=f"warning\n{json.dumps(error)}\n", code=3)
    assert store.backup([tmp_path], host="n1", tags=[]).unread == (("/srv/x", "permission denied"),)


def test_a_partial_snapshot_that_names_nothing_is_partial_all_the_same(
    fake: FakeRestic, store: Restic, tmp_path: Path
) -> None:
    fake.says(out=f"{SUMMARY}\n", err="Warning: at least one source file could not be read\n", code=3)
    assert store.backup([tmp_path], host="n1", tags=[]).unread != ()


def test_secrets_are_in_no_argument(fake: FakeRestic, store: Restic, tmp_path: Path) -> None:
    fake.says(out=SUMMARY + "\n")
    store.backup([tmp_path], host="n1", tags=["run=1"], exclude=["*.tmp"], parent="c" * 64)
    argv, environment = "\n".join(fake.argv()), (fake.folder / "env").read_text()
    assert "sesame" not in argv + environment
    assert "open" not in argv
    assert "AWS_SECRET_ACCESS_KEY=open" in environment
    assert f"RESTIC_KEY_HINT={'ab' * 32}" in environment


def test_a_backend_without_progress_is_given_up_and_restic_is_ended(fake: FakeRestic, store: Restic) -> None:
    fake.says(script=f'echo $$ > {fake.folder}/pid; echo "Stat returned error, retrying" >&2; exec sleep 600')
    with pytest.raises(BackendError, match=r"no progress in 1 s.*retrying"):
        store.identity()
    with pytest.raises(ProcessLookupError):
        os.kill(int((fake.folder / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("The request signature we calculated does not match the signature you provided.", AccessError),
        ("The AWS Access Key Id you provided does not exist in our records.", AccessError),
        ("The provided token has expired.", AccessError),
        ("The difference between the request time and the current time is too large.", AccessError),
        ("The specified bucket does not exist", NotFoundError),
    ],
)
def test_a_store_that_says_no_is_not_asked_until_the_time_is_over(
    fake: FakeRestic, store: Restic, monkeypatch: pytest.MonkeyPatch, said: str, kind: type[KosError]
) -> None:
    monkeypatch.setattr(store, "_timeout_s", 600)
    line = f"Stat(<config/>) returned error, retrying after 1.38s: Stat: {said}"
    fake.says(script=f'echo $$ > {fake.folder}/pid; echo "{line}" >&2; exec sleep 600')
    with pytest.raises(kind, match="Stat: The" if kind is AccessError else "init"):
        store.identity()
    with pytest.raises(ProcessLookupError):
        os.kill(int((fake.folder / "pid").read_text()), 0)


def test_the_question_that_follows_each_failure_is_not_what_went_wrong(
    fake: FakeRestic, store: Restic
) -> None:
    asked = "Is there a repository at the following location?\nrest:http://h/n1/"
    fake.says(err=f"Fatal: unable to open config file: dial tcp: connection refused\n{asked}\n", code=1)
    with pytest.raises(BackendError, match=r"dial tcp: connection refused$"):
        store.identity()


def test_a_file_that_is_called_access_denied_is_no_store_that_says_no(
    fake: FakeRestic, store: Restic
) -> None:
    fake.says(err="Fatal: cannot read /srv/access denied", code=1)
    with pytest.raises(KosError) as caught:
        store.identity()
    assert not isinstance(caught.value, AccessError)


def test_progress_keeps_a_long_call_alive(fake: FakeRestic, store: Restic, tmp_path: Path) -> None:
    line = '{"message_type":"status","bytes_done":%d}'
    loop = f"for n in 1 2 3 4 5 6 7 8; do printf '{line}\\n' $n; sleep 0.3; done"
    fake.says(out=SUMMARY + "\n", script=loop)
    assert store.backup([tmp_path], host="n1", tags=[]).snapshot == "f" * 64


def test_what_grows_without_an_end_of_a_line_is_progress(
    fake: FakeRestic, store: Restic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_timeout_s", 2)
    fake.says(
        out='"an id"}', script="printf '{\"id\":'; for n in 1 2 3 4 5 6 7; do printf ' '; sleep 0.5; done"
    )
    assert store.identity() == "an id"


def test_a_clock_that_ticks_is_no_progress(fake: FakeRestic, store: Restic, tmp_path: Path) -> None:
    line = '{"message_type":"status","bytes_done":1,"seconds_elapsed":%d}'
    fake.says(script=f"n=0; while :; do n=$((n+1)); printf '{line}\\n' $n; sleep 0.2; done")
    with pytest.raises(BackendError, match="no progress"):
        store.backup([tmp_path], host="n1", tags=[])


def test_a_restic_that_does_not_end_is_killed(
    fake: FakeRestic, store: Restic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restic, "_GRACE_S", 0.5)
    fake.says(script=f"trap '' INT; echo $$ > {fake.folder}/pid; while :; do sleep 0.1; done")
    with pytest.raises(BackendError):
        store.identity()
    with pytest.raises(ProcessLookupError):
        os.kill(int((fake.folder / "pid").read_text()), 0)


def test_forget_that_was_refused_in_silence_shows_in_the_list(fake: FakeRestic, store: Restic) -> None:
    there = [
        {"id": name * 64, "time": "2026-11-21T12:00:00.123456789Z", "tags": ["kos"], "paths": []}
        for name in "ab"
    ]
    fake.says(out=json.dumps(there) + "\n")
    assert store.forget(["a" * 64, "c" * 64]) == ["a" * 64]


def test_text_after_the_list_does_not_hide_it(fake: FakeRestic, store: Restic) -> None:
    fake.says(out='[{"id":"%s","time":"2026-11-21T12:00:00Z"}]\n3 snapshots have been removed\n' % ("a" * 64))
    assert [one.id for one in store.snapshots()] == ["a" * 64]


def test_a_list_that_is_none_is_no_empty_list(fake: FakeRestic, store: Restic) -> None:
    fake.says(out="null\n")
    with pytest.raises(ResticError, match="no list"):
        store.snapshots()


def test_being_locked_is_no_finding_of_a_check(fake: FakeRestic, store: Restic) -> None:
    fake.says(out='{"message_type":"summary","num_errors":1}\n', err="repository is already locked", code=11)
    with pytest.raises(BusyError, match="kosctl backup unlock"):
        store.check((1, 1))


@pytest.mark.parametrize("said", ["restic 0.14.0 compiled with go", "restic 0.17.0 (x)", "what?", ""])
def test_a_restic_that_is_too_old_or_does_not_say_is_refused(fake: FakeRestic, said: str) -> None:
    fake.says(out=said)
    with pytest.raises(InputError, match=r"0\.17\.1"):
        restic.check_version()


@pytest.mark.parametrize("said", ["restic 0.17.1 compiled with go1.23", "restic 0.18.0 x", "restic 1.0.0 x"])
def test_a_restic_that_is_new_enough_is_taken(fake: FakeRestic, said: str) -> None:
    fake.says(out=said)
    assert restic.check_version() in said


def test_a_call_that_is_interrupted_leaves_no_restic_behind(
    fake: FakeRestic, store: Restic, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def interrupted(_self: Restic, process: subprocess.Popen[bytes], *_rest: object) -> None:
        started.append(process.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(Restic, "_follow", interrupted)
    fake.says(script="exec sleep 600")
    with pytest.raises(KeyboardInterrupt):
        store.identity()
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], signal.SIGCONT)


def test_the_cache_is_of_root_alone(fake: FakeRestic, store: Restic, tmp_path: Path) -> None:
    fake.says(out='{"id":"1"}')
    store.identity()
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
