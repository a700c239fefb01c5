"""The contract of a stack: what its output `kos_fleet` says to the inventory, checked against the schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import fastjsonschema

from kosnode.errors import InputError

OUTPUT = "kos_fleet"
FORMAT = 1


def schema() -> dict[str, Any]:
    """Return the published schema of the contract."""
    text = resources.files(__package__).joinpath("schemas/contract.schema.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def check(contract: Mapping[str, object]) -> None:
    """Check a contract before it becomes an output.

    Raises:
        InputError: the first rule that is broken; `key` is the dotted path of the value.
    """
    try:
        _validate(dict(contract))
    except fastjsonschema.JsonSchemaValueException as error:
        key = OUTPUT + str(error.name).removeprefix("data")
        rule = (error.definition or {}).get("x-rule")
        message = str(error.message).removeprefix(str(error.name)).strip()
        raise InputError(f"{key}: {f'must be {rule}' if rule else message}", key=key) from None


def aws(
    *,
    fleet: str,
    stack: str,
    account: str,
    region: str,
    zones: Sequence[str],
    groups: Sequence[Mapping[str, object]],
    tags: Mapping[str, str],
    mirror_bucket: str,
    backup_bucket: str,
    backup_key_arn: object,
    dns_zone: str,
) -> dict[str, object]:
    """Return the contract of an AWS fleet.

    Args:
        fleet, stack, account, region, zones, dns_zone: as the schema says.
        groups: the node groups, in any order.
        tags: what every instance of the stack is tagged with.
        mirror_bucket, backup_bucket: names.
        backup_key_arn: key of the backups, text or what will be text.
    """
    return {
        "format": FORMAT,
        "fleet": fleet,
        "stack": stack,
        "provider": "aws",
        "account": account,
        "region": region,
        "zones": list(zones),
        "groups": [dict(group) for group in sorted(groups, key=lambda one: (one["wave"], one["name"]))],
        "instances": {"tags": dict(tags)},
        "connection": {"kind": "ssm"},
        "mirror": {"url": mirror_url(mirror_bucket, region), "bucket": mirror_bucket},
        "backup": {"bucket": backup_bucket, "region": region, "kms_key": backup_key_arn},
        "dns_zone": dns_zone,
    }


def mirror_url(bucket: str, region: str) -> str:
    """Return the address of a mirror's bucket: that of its region, which does not redirect."""
    return f"https://{bucket}.s3.{region}.amazonaws.com/"


@cache
def _validator() -> Any:
    return fastjsonschema.compile(schema(), use_default=False)


def _validate(document: dict[str, object]) -> None:
    _validator()(document)
