"""Looks whether there are credentials, and where, without reading their values or asking anybody."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

from kosnode.errors import InputError

# Each pair, or single variable, from which the provider makes credentials by itself.
_VARIABLES = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI",),
)


# What a profile needs besides a region, one of them.
_SOURCES = (
    *("aws_access_key_id", "credential_process", "credential_source", "login_session", "source_profile"),
    *("sso_account_id", "sso_session", "sso_start_url", "web_identity_token_file"),
)


def check(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to begin without credentials: a run that ends in the middle leaves half a stack.

    Args:
        environment: variables of this process.

    Raises:
        InputError: there are none; says where was looked, and nothing of what was there.
    """
    for names in _VARIABLES:
        if all(environment.get(name) for name in names):
            return
    home = Path(environment.get("HOME", "/"))
    places = {
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials"): "{}",
        Path(environment.get("AWS_CONFIG_FILE") or home / ".aws/config"): "profile {}",
    }
    profile = environment.get("AWS_PROFILE") or "default"
    for path, section in places.items():
        if {profile, section.format(profile)} & _sections(path):
            return
    looked = " nor ".join(" with ".join(names) for names in _VARIABLES)
    files = " and ".join(str(path) for path in places)
    raise InputError(
        f"credentials of AWS are missing: neither {looked} is set, and {files} have no profile "
        f"{profile}. On a machine that has them from its own role, name a profile with "
        "`credential_source = Ec2InstanceMetadata`",
        key="credentials",
    )


def _sections(path: Path) -> set[str]:
    """Return the sections of a file that lead to credentials; none of what is no such file."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(path, "utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return set()
    return {name for name in parser.sections() if any(parser.has_option(name, key) for key in _SOURCES)}
