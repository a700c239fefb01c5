"""Missing credentials are named with the place that was looked at, and never printed (D07)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleParserError
from botocore.client import BaseClient
from botocore.exceptions import ClientError, CredentialRetrievalError

from ansible_collections.kos.fleet.plugins.plugin_utils import _contract

from .conftest import Read


def test_missing_credentials_are_named_with_the_places_looked_at(read: Read) -> None:
    with pytest.raises(
        AnsibleParserError,
        match=r"instances of account 123456789012 in eu-central-1: no credentials; looked at AWS_ACCESS.*"
        r"the shared credentials file, and the role",
    ):
        read()


def test_missing_credentials_for_a_state_are_named_too(read: Read) -> None:
    config = Path.home() / ".aws/config"
    config.parent.mkdir()
    config.write_text("[profile team]\nregion = eu-central-1\n")
    with pytest.raises(
        AnsibleParserError, match=r"s3://state/.*dev.json: no credentials; looked at profile team"
    ):
        read(stack="dev", project="aws-fleet", state="s3://state?profile=team")


def test_a_profile_that_is_not_configured_is_named(read: Read) -> None:
    with pytest.raises(AnsibleParserError, match="profile 'team' is not in the AWS configuration"):
        read(aws_profile="team")


def test_half_of_a_credential_is_none(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDHALF")

    with pytest.raises(AnsibleParserError, match="no credentials") as refused:
        read()
    assert "AKIDHALF" not in str(refused.value)


@pytest.mark.parametrize(
    ("missing", "named"), [("boto3", "boto3"), ("botocore", "boto3"), ("fastjsonschema", "fastjsonschema")]
)
def test_a_library_that_is_missing_is_named(
    read: Read, monkeypatch: pytest.MonkeyPatch, missing: str, named: str
) -> None:
    _contract._validator.cache_clear()
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(AnsibleParserError, match=f"required Python library .{named}."):
        read()


def test_a_profile_of_the_environment_is_named_too(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "")

    with pytest.raises(AnsibleParserError, match="profile '' is not in the AWS configuration"):
        read()


@pytest.mark.parametrize(
    "raised",
    [
        ClientError(
            {"Error": {"Code": "AuthFailure", "Message": "no such key hunter2"}}, "DescribeInstances"
        ),
        CredentialRetrievalError(provider="custom-process", error_msg="printed hunter2"),
    ],
)
def test_what_aws_says_is_told_by_its_code_alone(
    read: Read, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDWHOLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")

    def refuse(*_args: Any) -> None:
        raise raised

    monkeypatch.setattr(BaseClient, "_make_api_call", refuse)

    with pytest.raises(AnsibleParserError, match=r"AuthFailure|CredentialRetrievalError") as refused:
        read()
    assert "hunter2" not in str(refused.value)
    assert "AKIDWHOLE" not in str(refused.value)
