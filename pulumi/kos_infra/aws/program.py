"""How a program runs: settings, then credentials, and resources only when nothing is wrong with either."""

from __future__ import annotations

import re
from collections.abc import Callable

import pulumi

from kosnode.errors import InputError

from .. import settings
from . import credentials
from .names import Names

_STACK = re.compile(r"[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?")
_BUCKET_NAME = 63


def read_then_declare(
    model: type[settings.Model], check: Callable[[settings.Model, str], Callable[[], None]]
) -> None:
    """Run a program: settings first, then credentials, and resources only when nothing is wrong with either.

    Args:
        model: what the settings must be.
        check: looks at all that can be wrong with settings and the stack's name, and returns what registers.

    Raises:
        pulumi.RunError: what is wrong; Pulumi shows its message alone.
    """
    config = pulumi.Config()
    try:
        wanted = settings.read(model, config.get("settings"), config.full_key("settings"))
        declare = check(wanted, pulumi.get_stack())
        credentials.check()
    except InputError as error:
        raise pulumi.RunError(str(error)) from None
    declare()


def check_names(names: Names, stack: str) -> None:
    """Refuse a fleet and a stack whose names do not fit where they are used.

    Args:
        names: what they are put together to.
        stack: as Pulumi calls it.

    Raises:
        InputError: naming the stack, or both.
    """
    if not _STACK.fullmatch(stack):
        raise InputError(
            f"stack {stack}: must be lower-case letters, digits and inner hyphens, 16 at most",
            key="stack",
        )
    longest = names.bucket("mirror")
    if len(longest) > _BUCKET_NAME:
        raise InputError(
            f"fleet and stack: bucket {longest} has {len(longest)} characters, {_BUCKET_NAME} are allowed",
            key="fleet",
        )
