"""Reads what a stack is configured with: strict models, and one message that names the key and the rule."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from kosnode.errors import InputError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
"""What may stand in a bucket's name, a tag and a DNS label: lower-case, digits, inner hyphens, 32 at most."""

_RULES = {
    "extra_forbidden": "is no setting that this program knows",
    "missing": "is missing",
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number without quotes",
    "bool_type": "must be true or false",
    "string_pattern_mismatch": "must match {pattern}",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "too_short": "must have {min_length} or more",
    "too_long": "must have {max_length} at most",
}


class Settings(BaseModel):
    """A part of a stack's settings: nothing unknown, nothing converted, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Model = TypeVar("Model", bound=Settings)


def read(model: type[Model], text: str | None, where: str) -> Model:
    """Read a stack's settings.

    Args:
        model: what they must be.
        text: JSON, as Pulumi gives a structured value; None where the stack has no settings.
        where: how the settings are called in messages, such as `kos-aws-fleet:settings`.

    Raises:
        InputError: the first rule that is broken; `key` is the dotted path of the value.
    """
    if text is None:
        raise InputError(f"{where} is missing: the stack file has no settings", key=where)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        rule = _RULES.get(first["type"])
        said = rule.format(**first.get("ctx", {})) if rule else first["msg"].removeprefix("Value error, ")
        # A rule about several of them names its key itself.
        raise InputError(": ".join(filter(None, (where, key, said))), key=key or None) from None
