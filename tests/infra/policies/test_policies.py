"""The policies: each has programs that violate it alone, and the project's own programs violate none."""

from __future__ import annotations

import pytest

from infra.conftest import ROOT, Example
from infra.policies.programs import VIOLATIONS, Program
from kos_infra import policies, recording
from kos_infra.policies import aws, pack

# What a program of one resource cannot help: it has no budget, and its bucket lacks what is beside a bucket.
BESIDE_THE_POINT = {"budgeted", "whole-buckets"}


@pytest.mark.parametrize(
    ("rule", "program"),
    [(rule, program) for rule, _what, program in VIOLATIONS],
    ids=[f"{rule}: {what}" for rule, what, _program in VIOLATIONS],
)
def test_a_violation_is_found_and_nothing_else(rule: str, program: Program) -> None:
    recorded = recording.record(program, project="test", stack="test", config={})
    found = policies.violations(recorded.registrations, policies.RULES)
    broken = {violation.rule for violation in found}
    assert rule in broken
    assert broken - BESIDE_THE_POINT <= {rule}


def test_every_policy_has_a_program_that_violates_it() -> None:
    assert {rule for rule, _what, _program in VIOLATIONS} == {rule.name for rule in policies.RULES}


@pytest.mark.parametrize(
    ("program", "stack"),
    [("aws_fleet", "dev"), ("aws_fleet", "prod"), ("aws_eks", "dev"), ("aws_eks", "prod")],
)
def test_the_projects_own_programs_violate_none(example: Example, program: str, stack: str) -> None:
    recorded = recording.record_file(
        ROOT / f"pulumi/{program}/__main__.py",
        project=f"kos-{program.replace('_', '-')}",
        stack=stack,
        config=example(program, stack),
    )
    assert len(recorded.registrations) > 40
    assert policies.violations(recorded.registrations, policies.RULES) == ()
    taggable = {one.type for one in recorded.registrations if one.type.startswith("aws:")}
    assert taggable <= aws.TAGGED | aws.UNTAGGED | {aws.SCALING_GROUP}


def test_the_engine_is_given_every_policy() -> None:
    assert [policy.name for policy in pack.policies()] == [rule.name for rule in policies.RULES]
