"""A drill's processes end with it, and see no network but loopback; as root, which namespaces need."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kosnode.drill import isolation
from kosnode.errors import DamagedError, KosError, UntestedError

RUNTIME = Path(__file__).resolve().parents[4] / "runtime"


def test_work_hands_back_its_result_and_its_errors() -> None:
    assert isolation.contained(lambda: {"a": [1]}) == {"a": [1]}

    def fail() -> None:
        raise DamagedError("no", key="k", detail={"x": 1})

    with pytest.raises(DamagedError, match="no") as caught:
        isolation.contained(fail)
    assert (caught.value.key, caught.value.detail) == ("k", {"x": 1})
    with pytest.raises(KosError, match="unexpected ZeroDivisionError"):
        isolation.contained(lambda: 1 // 0)
    # Processes are born where they were before.
    assert subprocess.run(["true"], check=False).returncode == 0


def test_work_that_dies_could_not_test() -> None:
    with pytest.raises(UntestedError, match="the process of the drill ended with 3"):
        isolation.contained(lambda: os._exit(3))


def test_what_the_work_started_is_gone_with_it(tmp_path: Path) -> None:
    def leave_something() -> None:
        subprocess.Popen(["sh", "-c", f"sleep 0.5; touch {tmp_path}/late"], start_new_session=True)

    isolation.contained(leave_something)
    time.sleep(1)
    assert not (tmp_path / "late").exists()


def test_a_process_that_is_killed_takes_the_work_along(tmp_path: Path) -> None:
    code = (
        "import pathlib, time\nfrom kosnode.drill import isolation\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "def work():\n    (here / 'begun').touch(); time.sleep(1); (here / 'late').touch()\n"
        "isolation.contained(work)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(RUNTIME)})
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


def test_a_thread_that_is_cut_off_has_loopback_alone_and_comes_back() -> None:
    before = socket.if_nameindex()
    with isolation.cut_off():
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
        shown = subprocess.run(["cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
        assert [line.split(":")[0].strip() for line in shown.splitlines()[2:]] == ["lo"]
    assert socket.if_nameindex() == before
