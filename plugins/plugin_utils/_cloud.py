# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of AWS: the running instances of a fleet, and one object of a bucket."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

# The most that one call of DescribeInstances gives.
PAGE = 1000
GROUP_TAG = "aws:autoscaling:groupName"
_TIMEOUT_S = 20


class CloudError(Exception):
    """AWS could not be asked, or answered something that does not fit; the message says where and why."""


@dataclass(frozen=True)
class Bucket:
    """A bucket that is read from.

    Args:
        name: of the bucket.
        region, profile, endpoint: None takes what the environment says.
    """

    name: str
    region: str | None = None
    profile: str | None = None
    endpoint: str | None = None

    def read(self, key: str, limit: int) -> bytes | None:
        """Return the first bytes of an object, at most `limit` of them; None where there is no object.

        Raises:
            CloudError: no credentials, or the bucket refuses.
        """
        where = f"s3://{self.name}/{key}"
        with _explained(where, self.profile) as exceptions:
            client = _client("s3", self.region, self.profile, self.endpoint)
            try:
                return bytes(client.get_object(Bucket=self.name, Key=key)["Body"].read(limit))
            except exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code") == "NoSuchKey":
                    return None
                raise


def running_instances(
    region: str, account: str, tags: Mapping[str, str], profile: str | None
) -> list[dict[str, t.Any]]:
    """Return the running instances that carry all of the tags, by id; one call for each page of them.

    Args:
        region: where they are.
        account: whose they have to be.
        tags: by which they are known.
        profile: of the AWS configuration; None takes what the environment says.

    Returns:
        For each its `id`, `type`, `availability_zone`, `private_ip`, `image`, `launched` (ISO 8601), `tags`
        and `autoscaling_group` (None where it is of none).

    Raises:
        CloudError: no credentials, credentials of another account, or AWS refuses.
    """
    filters = [
        {"Name": "instance-state-name", "Values": ["running"]},
        *({"Name": f"tag:{name}", "Values": [value]} for name, value in sorted(tags.items())),
    ]
    found = []
    with _explained(f"the instances of account {account} in {region}", profile):
        pages = _client("ec2", region, profile).get_paginator("describe_instances")
        for page in pages.paginate(Filters=filters, PaginationConfig={"PageSize": PAGE}):
            for reservation in page["Reservations"]:
                _refuse_other_account(reservation["OwnerId"], account)
                found += [_instance(one) for one in reservation["Instances"]]
        if not found:
            # Another account has none of them either, and would look like a fleet without nodes.
            _refuse_other_account(_client("sts", region, profile).get_caller_identity()["Account"], account)
    return sorted(found, key=lambda one: str(one["id"]))


def _refuse_other_account(found: str, account: str) -> None:
    if found != account:
        raise CloudError(
            f"the credentials are those of account {found}; the contract is of account {account}"
        )


def _instance(described: Mapping[str, t.Any]) -> dict[str, t.Any]:
    tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}
    return {
        "id": described["InstanceId"],
        "type": described["InstanceType"],
        "availability_zone": described["Placement"]["AvailabilityZone"],
        "private_ip": described.get("PrivateIpAddress"),
        "image": described["ImageId"],
        "launched": described["LaunchTime"].isoformat(),
        "autoscaling_group": tags.pop(GROUP_TAG, None),
        "tags": tags,
    }


def _client(service: str, region: str | None, profile: str | None, endpoint: str | None = None) -> t.Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"mode": "standard", "max_attempts": 5}
    )
    session = boto3.Session(profile_name=profile, region_name=region)
    return session.client(service, endpoint_url=endpoint, config=config)


@contextmanager
def _explained(what: str, profile: str | None) -> Iterator[t.Any]:
    """Turn what boto3 raises into one message without a secret: AWS's code is told, its words are not."""
    from botocore import exceptions

    looked = (
        f"profile {profile} of the AWS configuration"
        if profile
        else (
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, the shared credentials file, "
            "and the role of this machine"
        )
    )
    try:
        yield exceptions
    except exceptions.ProfileNotFound as error:
        raise CloudError(
            f"{what}: profile {error.kwargs['profile']!r} is not in the AWS configuration"
        ) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise CloudError(f"{what}: no credentials; looked at {looked}") from None
    except exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an unknown error")
        raise CloudError(f"{what}: AWS refuses with {code}; the credentials are from {looked}") from None
    except (exceptions.BotoCoreError, ValueError) as error:
        # An address that is none is a ValueError of its own.
        raise CloudError(f"{what}: {type(error).__name__}; asked with {looked}") from None
