"""A contract is read from a stack by the command, from its state, or from an exported file; no secret is."""

from __future__ import annotations

import gzip
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from ansible.errors import AnsibleParserError

from .conftest import REGION, Read, launch

pytestmark = pytest.mark.usefixtures("cloud")

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:abc"}


def deployment(outputs: dict[str, Any] | None) -> dict[str, Any]:
    """What Pulumi keeps of a stack, as far as it matters here."""
    stack = {"urn": "urn:pulumi:dev::aws-fleet::pulumi:pulumi:Stack::aws-fleet-dev", "custom": False}
    outputs_if_any = {} if outputs is None else {"outputs": outputs}
    return {
        "manifest": {"time": "2026-11-21T12:00:00Z", "magic": "m", "version": "v3.259.0"},
        "resources": [
            {
                "urn": "urn:pulumi:dev::aws-fleet::aws:s3/bucket:Bucket::mirror",
                "type": "aws:s3/bucket:Bucket",
            },
            {**stack, "type": "pulumi:pulumi:Stack", **outputs_if_any},
        ],
    }


def checkpoint(outputs: dict[str, Any] | None) -> bytes:
    body = {"version": 3, "checkpoint": {"stack": "dev", "latest": deployment(outputs)}}
    return json.dumps(body).encode()


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts a command `pulumi` on PATH, which notes how it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    (tmp_path / "program").mkdir()
    (tmp_path / "program/Pulumi.yaml").write_text("name: aws-fleet\n")

    def pulumi(stdout: str = "", stderr: str = "", code: int = 0) -> None:
        (folder / "stdout").write_text(stdout)
        (folder / "stderr").write_text(stderr)
        (folder / "pulumi").write_text(
            f'#!/bin/sh\necho "$PWD $PULUMI_BACKEND_URL $*" > {folder}/asked\n'
            f"cat {folder}/stdout\ncat {folder}/stderr >&2\nexit {code}\n"
        )
        (folder / "pulumi").chmod(stat.S_IRWXU)

    return pulumi


def state_file(folder: Path, name: str = "dev.json") -> Path:
    path = folder / "state/.pulumi/stacks/aws-fleet" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


STATE = {"stack": "dev", "project": "aws-fleet", "state": "file://./state"}
COMMAND = {"stack": "dev", "project_dir": "program"}


def test_a_stack_is_read_by_the_command_in_the_folder_of_its_program(
    contract: dict[str, Any], read: Read, pulumi: Callable[..., None], tmp_path: Path
) -> None:
    (node,) = launch(contract, "canary")
    pulumi(json.dumps({"kos_fleet": contract, "other": "[secret]"}))

    assert list(read(**COMMAND).hosts) == [node]
    asked = (tmp_path / "bin/asked").read_text()
    assert asked == f"{tmp_path}/program  stack output --json --non-interactive --stack dev\n"


def test_the_command_is_told_where_the_state_is(
    contract: dict[str, Any], read: Read, pulumi: Callable[..., None], tmp_path: Path
) -> None:
    pulumi(json.dumps({"kos_fleet": contract}))

    read(**COMMAND, state="s3://state")

    assert " s3://state " in (tmp_path / "bin/asked").read_text()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_stack_is_read_from_its_state_in_a_folder(
    contract: dict[str, Any], read: Read, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    (node,) = launch(contract, "canary")
    name = "dev.json" if pack is bytes else "dev.json.gz"
    state_file(tmp_path, name).write_bytes(pack(checkpoint({"kos_fleet": contract})))

    assert list(read(**STATE).hosts) == [node]


@pytest.mark.parametrize("address", ["s3://state", "s3://state/teams/one?region=eu-central-1&awssdk=v2"])
def test_a_stack_is_read_from_its_state_in_a_bucket(
    contract: dict[str, Any], read: Read, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    (node,) = launch(contract, "canary")
    s3 = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket="state", CreateBucketConfiguration={"LocationConstraint": REGION})
    prefix = "teams/one/" if "teams" in address else ""
    key = f"{prefix}.pulumi/stacks/aws-fleet/dev.json"
    s3.put_object(Bucket="state", Key=key, Body=checkpoint({"kos_fleet": contract}))

    assert list(read(**{**STATE, "state": address}).hosts) == [node]
    with pytest.raises(AnsibleParserError, match=r"s3://state/.*prod.json: there is no such stack"):
        read(**{**STATE, "stack": "prod", "state": address})
    with pytest.raises(AnsibleParserError, match="AWS refuses with NoSuchBucket"):
        read(**{**STATE, "state": "s3://elsewhere"})


@pytest.mark.parametrize("form", ["output", "outputs", "export"])
def test_an_exported_file_stands_for_a_stack(
    contract: dict[str, Any], read: Read, tmp_path: Path, form: str
) -> None:
    (node,) = launch(contract, "canary")
    forms = {
        "output": contract,
        "outputs": {"kos_fleet": contract, "other": 1},
        "export": {"version": 3, "deployment": deployment({"kos_fleet": contract})},
    }
    (tmp_path / "exported.json").write_text(json.dumps(forms[form]))

    assert list(read(file="exported.json").hosts) == [node]


def test_a_stack_without_outputs_is_refused(read: Read, tmp_path: Path, pulumi: Callable[..., None]) -> None:
    said = "stack has no outputs; `pulumi up`"
    state_file(tmp_path).write_bytes(checkpoint(None))
    with pytest.raises(AnsibleParserError, match=said):
        read(**STATE)
    state_file(tmp_path).write_text('{"version": 3, "checkpoint": {"stack": "dev", "latest": null}}')
    with pytest.raises(AnsibleParserError, match=said):
        read(**STATE)
    pulumi("{}")
    with pytest.raises(AnsibleParserError, match=f"stack dev: the {said}"):
        read(**COMMAND)
    pulumi('{"url": "x", "bucket": "y"}')
    with pytest.raises(AnsibleParserError, match="has no output kos_fleet, only bucket, url"):
        read(**COMMAND)


@pytest.mark.parametrize(
    ("where", "key"), [("connection", "kos_fleet.connection.bucket"), ("zones", "kos_fleet.zones[1]")]
)
def test_a_secret_in_a_contract_is_refused_by_its_key(
    contract: dict[str, Any], read: Read, tmp_path: Path, where: str, key: str
) -> None:
    if where == "zones":
        contract["zones"][1] = SECRET
    else:
        contract["connection"]["bucket"] = SECRET
    state_file(tmp_path).write_bytes(checkpoint({"kos_fleet": contract}))

    with pytest.raises(AnsibleParserError) as refused:
        read(**STATE)
    assert f"{key}: is a secret" in str(refused.value)
    assert "v1:abc" not in str(refused.value)


def test_a_contract_that_is_a_secret_is_not_shown_by_the_command_and_refused(
    read: Read, pulumi: Callable[..., None]
) -> None:
    pulumi('{"kos_fleet": "[secret]"}')

    with pytest.raises(AnsibleParserError, match="kos_fleet: is a secret"):
        read(**COMMAND)


def test_other_secrets_of_a_stack_do_not_matter_and_reach_no_variable(
    contract: dict[str, Any], read: Read, tmp_path: Path
) -> None:
    launch(contract, "canary")
    state_file(tmp_path).write_bytes(checkpoint({"kos_fleet": contract, "password": SECRET}))

    inventory = read(**STATE)

    told = [host.vars for host in inventory.hosts.values()] + [one.vars for one in inventory.groups.values()]
    assert "v1:abc" not in repr(told)


def test_what_the_command_says_is_told_without_the_secrets_of_its_environment(
    read: Read, pulumi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "open sesame")
    pulumi(stderr="error: no stack named 'dev' found (open sesame)\n", code=255)

    with pytest.raises(
        AnsibleParserError, match=r"pulumi failed: error: no stack named 'dev' found \(\*\*\*\)"
    ):
        read(**COMMAND)


def test_half_of_a_secret_is_not_told_either(
    read: Read, pulumi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "open  sesame")
    pulumi(stderr=f"error: open  sesame{'.' * 495}\n", code=255)

    with pytest.raises(AnsibleParserError) as refused:
        read(**COMMAND)
    assert "same" not in str(refused.value)


def test_a_missing_command_is_named(read: Read, pulumi: Callable[..., None]) -> None:
    with pytest.raises(AnsibleParserError, match="command pulumi is not on PATH"):
        read(**COMMAND)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not JSON"),
        (b'{"version": 3, "checkp', "is not JSON"),
        (b"\x1f\x8b\x08", "is not whole"),
        (gzip.compress(b"{}", mtime=0)[:-4], "is not whole"),
        (b"\x1f\x8b\x08" + b"\x00" * 7 + b"\xff" * 20, "is not whole"),
        (b"[]", "neither a contract, nor a state"),
        (b'{"version": 3}', "neither a contract, nor a state"),
        (b'{"checkpoint": {"latest": {"resources": {}}}}', "neither a contract, nor a state"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_damaged_state_is_refused_in_one_sentence(
    read: Read, tmp_path: Path, data: bytes, said: str
) -> None:
    state_file(tmp_path).write_bytes(data)

    with pytest.raises(AnsibleParserError, match=said):
        read(**STATE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stack": "dev"}, "names no source, or several"),
        ({"stack": "dev", "project": "aws-fleet"}, "names no source, or several"),
        ({**COMMAND, "file": "contract.json"}, "names no source, or several"),
        ({**COMMAND, **STATE}, "names no source, or several"),
        ({**STATE, "stack": "../dev"}, "stack: must be a plain name"),
        ({**STATE, "project": ".."}, "project: must be a plain name"),
        ({**STATE, "state": "https://state"}, "state: must be file://FOLDER or s3://BUCKET/PREFIX"),
        ({**STATE, "state": "s3:///state"}, "state: must be file://FOLDER or s3://BUCKET/PREFIX"),
        ({**STATE, "state": "file://nowhere"}, "nowhere is no folder"),
        ({**STATE, "state": "file://."}, "there is no such stack"),
        ({"stack": "dev", "project_dir": "nowhere"}, "nowhere has no Pulumi.yaml"),
        ({"file": "nowhere.json"}, "nowhere.json cannot be read: No such file"),
        ({"file": "."}, "cannot be read: Is a directory"),
        ({**STATE, "state": "s3://state?region=eu-central-1&endpoint=nowhere"}, "s3://state/.*: ValueError"),
    ],
)
def test_a_source_that_is_not_there_or_not_clear_is_refused_by_its_key(
    read: Read, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(AnsibleParserError, match=said):
        read(**options)
