"""What the examples register, to the last option: a change that nobody meant fails here.

A URN that changes without an alias is a resource that is deleted and made anew, and user data that changes
replaces machines. `KOS_WRITE_SNAPSHOTS=1` writes what is meant; the change is then read like code.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from infra.aws.conftest import Run
from kos_infra.recording import Registration

SNAPSHOTS = Path(__file__).with_name("snapshots")
# What a test's own root of trust and bundle decide.
OF_THE_TEST = {"sha256": "…", "size": 0, "trust_root": "…", "path": "…"}


@pytest.mark.parametrize(
    ("program", "stack"),
    [("aws_fleet", "dev"), ("aws_fleet", "prod"), ("aws_eks", "dev"), ("aws_eks", "prod")],
)
def test_names_inputs_and_options_change_only_where_somebody_means_it(
    run: Run, program: str, stack: str
) -> None:
    recorded = run(program, stack)
    now = {
        "resources": {one.urn: shown(one) for one in recorded.registrations},
        "outputs": recorded.outputs,
    }
    path = SNAPSHOTS / f"{program}.{stack}.json"
    if os.environ.get("KOS_WRITE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(now, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    before = json.loads(path.read_text("utf-8"))
    assert set(now["resources"]) == set(before["resources"])
    assert now == before


def shown(one: Registration) -> dict[str, Any]:
    """Return a registration as the snapshot has it: documents opened, what is not given left out."""
    options = {
        "provider": one.provider,
        "depends_on": list(one.depends_on),
        "protect": one.protect,
        "retain_on_delete": one.retain_on_delete,
        "ignore_changes": list(one.ignore_changes),
        "aliases": list(one.aliases),
    }
    return {"inputs": opened(dict(one.inputs)), **{name: value for name, value in options.items() if value}}


def opened(value: Any, key: str = "") -> Any:
    """Return a value with the documents in it as documents, without what the test itself decides."""
    if key in OF_THE_TEST:
        return OF_THE_TEST[key]
    if isinstance(value, dict):
        return {name: opened(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [opened(inner) for inner in value]
    if key == "userData":
        return opened(first_boot(value))
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    return value


def first_boot(user_data: str) -> dict[str, Any]:
    """Return what a node is told, and a hash of the program that it is told to."""
    data = base64.b64decode(user_data)
    plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    program, settings = (file["content"] for file in json.loads(plain.partition(b"\n")[2])["write_files"])
    return {"program": hashlib.sha3_256(program.encode()).hexdigest(), "settings": json.loads(settings)}
