"""Versions sort as SemVer 2.0.0 says, and ranges hold what they say."""

from __future__ import annotations

import random

import pytest

from kosnode import version
from kosnode.errors import InputError
from kosnode.version import Range, Version

# Section 11 of the specification, and numbers that text would sort wrongly.
ASCENDING = [
    "0.9.0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "10.0.0",
]


def test_versions_sort_by_precedence() -> None:
    shuffled = random.Random(7).sample(ASCENDING, len(ASCENDING))
    assert sorted(shuffled, key=version.key) == ASCENDING
    assert [str(one) for one in sorted(map(Version, shuffled))] == ASCENDING


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1.0", "v1.0.0", "1.0.0+build", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0-a..b"),
        *("1.0.0\n", " 1.0.0", "1.0.-1", "1.0.0-é", "\u0661.0.0", "1.0." + "9" * 70),
    ],
)
def test_what_is_not_a_version_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a version such as"):
        version.key(text)


@pytest.mark.parametrize(
    ("text", "wanted", "holds"),
    [
        ("1.5.0", ">=1.0.0 <2.0.0", True),
        ("1.0.0", ">=1.0.0 <2.0.0", True),
        ("2.0.0", ">=1.0.0 <2.0.0", False),
        ("2.0.0-rc.1", ">=1.0.0 <2.0.0", True),
        ("1.0.0-rc.1", ">=1.0.0", False),
        ("1.0.0", ">1.0.0", False),
        ("1.0.0", "<=1.0.0", True),
        ("1.2.3", "1.2.3", True),
        ("1.2.3", "=1.2.3", True),
        ("1.2.4", "1.2.3", False),
    ],
)
def test_a_range_holds_what_all_its_comparators_hold(text: str, wanted: str, holds: bool) -> None:
    assert version.matches(text, wanted) is holds


@pytest.mark.parametrize("text", ["", " ", "*", ">=1.0", "=>1.0.0", ">= 1.0.0", ">=1.0.0  <2.0.0", "^1.0.0"])
def test_what_is_not_a_range_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a (range|version)"):
        Range(text)
