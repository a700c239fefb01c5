"""Runs a command on a node while it asks for /health every few milliseconds, and prints when that changed.

Sent to the node's Python as it is: `python3 - SETTINGS`, where SETTINGS is a JSON object: `command` is the
command to run, `gaps` how many times the node has to stop being healthy and become so again, `steady_s` for
how long it has to be so before this ends, `timeout_s` when to give up. It prints a JSON object: `changes`, a
list of [seconds of CLOCK_MONOTONIC, state] where the state is good, bad (an answer other than 200) or down
(no answer), `begun` and `ended`, when the command began and ended, its `exit_code`, `stdout` and `stderr`.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

EVERY_S = 0.01


def ask() -> str:
    """Return what /health says now."""
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=2)
    try:
        connection.request("GET", "/health")
        return "good" if connection.getresponse().status == 200 else "bad"
    except (OSError, http.client.HTTPException):
        return "down"
    finally:
        connection.close()


def recoveries(changes: list[tuple[float, str]]) -> int:
    """Return how many times the node became healthy after it had not been."""
    return sum(state == "good" for _, state in changes[1:])


def watch(settings: dict[str, Any]) -> dict[str, Any]:
    """Run the command and return what was seen meanwhile and until the node was healthy again."""
    changes: list[tuple[float, str]] = [(time.monotonic(), ask())]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begun = time.monotonic()
        process = subprocess.Popen(settings["command"], stdout=out, stderr=err)
        ended = None
        while True:
            asked = time.monotonic()
            state = ask()
            if state != changes[-1][1]:
                # A good answer counts from when it came, any other from when it was asked for.
                changes.append((time.monotonic() if state == "good" else asked, state))
            if ended is None and process.poll() is not None:
                ended = time.monotonic()
            healthy = changes[-1][1] == "good" and time.monotonic() - changes[-1][0] >= settings["steady_s"]
            if ended is not None and healthy and recoveries(changes) >= settings["gaps"]:
                break
            if time.monotonic() - begun > settings["timeout_s"]:
                process.kill()
                break
            time.sleep(EVERY_S)
        process.wait()
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return {
        "changes": changes,
        "begun": begun,
        "ended": ended,
        "exit_code": process.returncode,
        "stdout": texts[0],
        "stderr": texts[1],
    }


if __name__ == "__main__":
    print(json.dumps(watch(json.loads(sys.argv[1]))))
