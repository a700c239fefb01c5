"""Makes a machine that boots for the first time a node of its fleet; cloud-init runs it, once, as root.

It travels in the user data of a launch template and runs where nothing else of kOS is yet, so it needs
Python's standard library alone. What it is told stands in a file beside it; docs/guide/clusters.md says what
a machine image must have.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

# Debian's package of each program that a node needs; `aws` completes the launch hook.
PROGRAMS = {
    "flock": "util-linux",
    "ssh-keygen": "openssh-client",
    "sudo": "sudo",
    "systemd-run": "systemd",
    "timeout": "coreutils",
    "useradd": "passwd",
    "visudo": "sudo",
    "aws": "awscli",
}
SYSTEM_PROGRAMS = "/usr/sbin:/sbin"
FETCH_TRIES = 30
FETCH_PAUSE_S = 5.0
FETCH_TIMEOUT_S = 20.0
TRIAL_PAUSE_S = 2.0


class BootError(Exception):
    """This machine cannot become a node; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Become a node, and tell the auto scaling group how that went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", type=Path, help="what this machine is told, JSON")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the machine's files are")
    options = parser.parse_args(arguments)
    os.umask(0o022)
    settings: dict[str, Any] = json.loads(options.settings.read_text("utf-8"))
    try:
        instance = instance_id(options.root)
        try:
            become_node(settings, instance, options.root)
        except BaseException:
            abandon_launch(settings["hook"], instance)
            raise
        complete_launch(settings["hook"], instance, "CONTINUE")
    except (BootError, OSError, tarfile.TarError, KeyError, ValueError) as error:
        print(f"first boot: {error}", file=sys.stderr)
        return 1
    print(f"first boot: {instance} is a node", file=sys.stderr)
    return 0


def become_node(settings: dict[str, Any], instance: str, root: Path) -> None:
    """Install the engine, have it make the host a node, and install a release where that is asked for.

    Raises:
        BootError: the first step that failed.
    """
    lacking = missing()
    if lacking:
        raise BootError(f"the machine image lacks {', '.join(lacking)}")
    engine = install_engine(settings["bundle"], root)
    spec = settings["spec"]
    spec["node"]["node"] = instance
    ask(engine, root, ["host", "apply"], spec)
    if settings["install"]:
        install_release(engine, root)


def missing() -> list[str]:
    """Return what the machine image lacks, each with Debian's package."""
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{SYSTEM_PROGRAMS}"
    lacking = [
        f"{program} (package {package})"
        for program, package in PROGRAMS.items()
        if shutil.which(program, path=path) is None
    ]
    if importlib.util.find_spec("zstandard") is None:
        lacking.append("the Python module zstandard (package python3-zstandard)")
    return lacking


def instance_id(root: Path) -> str:
    """Return the id of this machine, by which it is known to its cloud and to its fleet."""
    return (root / "var/lib/cloud/data/instance-id").read_text("ascii").strip()


def install_engine(bundle: dict[str, Any], root: Path) -> Path:
    """Fetch kosctl's bundle unless it is there, and unpack it where role bootstrap would.

    Args:
        bundle: its `url`, `version`, `size` in bytes and `sha256`.
        root: where the machine's files are.

    Returns:
        The folder of the engine.

    Raises:
        BootError: the mirror does not give the bytes that were asked for.
    """
    engine = root / "opt/kos" / str(bundle["version"])
    mark = engine / ".sha256"
    if mark.is_file() and mark.read_text("ascii").strip() == bundle["sha256"]:
        return engine
    data = fetch(bundle["url"], bundle["size"])
    found = hashlib.sha256(data).hexdigest()
    if found != bundle["sha256"]:
        raise BootError(f"{bundle['url']} has the digest {found}, not {bundle['sha256']}")
    engine.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".kosctl-", dir=engine.parent))
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            # The digest says what is in it; a newer Python wants to be told a rule all the same.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(fresh)
        for path in fresh.rglob("*"):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        fresh.chmod(0o755)
        (fresh / mark.name).write_text(f"{bundle['sha256']}\n", "ascii")
        os.sync()
        shutil.rmtree(engine, ignore_errors=True)
        fresh.rename(engine)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return engine


def fetch(url: str, size: int) -> bytes:
    """Return the bytes at an address; the network of a young machine may need a while."""
    for left in reversed(range(FETCH_TRIES)):
        try:
            with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as answer:
                data: bytes = answer.read(size + 1)
            break
        except (urllib.error.URLError, OSError) as error:
            if not left:
                raise BootError(f"{url} cannot be fetched: {error}") from None
            time.sleep(FETCH_PAUSE_S)
    if len(data) != size:
        raise BootError(f"{url} does not have the {size} bytes that it should have")
    return data


def install_release(engine: Path, root: Path) -> None:
    """Install the newest release of the node's channel, and confirm it once it is healthy.

    There is no release to fall back to and no controller that waits for this machine: what speaks for the
    node is its health, and the launch hook, which has the machine replaced unless this comes to its end.

    Raises:
        BootError: no release, or one that does not become healthy.
    """
    operate(engine, root, "stage")
    activated = operate(engine, root, "activate")["result"]
    if activated["how"] == "present":
        return
    trial, end = activated["trial"], time.monotonic() + activated["deadline_in_s"]
    while time.monotonic() < end:
        running = operate(engine, root, "status")["result"]["trial"]
        if running is None or running["id"] != trial:
            break
        if running["baked"] and running["health"] == "healthy":
            operate(engine, root, "confirm", token=activated["token"])
            return
        time.sleep(TRIAL_PAUSE_S)
    raise BootError(f"release {activated['version']} did not become healthy in its trial {trial}")


def operate(engine: Path, root: Path, verb: str, **options: str) -> dict[str, Any]:
    """Ask kosctl as an operator does: one request on its standard input."""
    return ask(engine, root, ["operate"], {"format": 1, "verb": verb, "options": options})


def ask(engine: Path, root: Path, command: list[str], request: dict[str, Any]) -> dict[str, Any]:
    """Run kosctl in a session of its own, as a fresh connection would be, and return its answer.

    Raises:
        BootError: it refused, failed, or gave no answer.
    """
    done = subprocess.run(
        [sys.executable, "-IB", str(engine / "bin/kosctl"), "--root", str(root), *command, "--json"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise BootError(f"kosctl {' '.join(command)} gave no answer: {done.stderr.strip()[-500:]}") from None
    if not answer["ok"]:
        error = answer["error"]
        key = f"{error['key']} " if error.get("key") else ""
        raise BootError(f"kosctl {' '.join(command)}: {key}{error['message']}")
    return answer


def abandon_launch(hook: dict[str, str], instance: str) -> None:
    """Have this machine replaced now; if that cannot be said, what went wrong before still counts."""
    try:
        complete_launch(hook, instance, "ABANDON")
    except (BootError, OSError) as error:
        print(f"first boot: {error}", file=sys.stderr)


def complete_launch(hook: dict[str, str], instance: str, result: str) -> None:
    """Tell the auto scaling group that waits for this machine what became of it.

    Raises:
        BootError: it cannot be told; it then replaces the machine when its patience ends.
    """
    command = ["aws", "autoscaling", "complete-lifecycle-action", "--region", hook["region"]]
    command += ["--auto-scaling-group-name", hook["group"], "--lifecycle-hook-name", hook["name"]]
    command += ["--instance-id", instance, "--lifecycle-action-result", result]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BootError(f"the launch hook cannot be completed: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
