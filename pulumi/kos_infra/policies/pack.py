"""The rules as Pulumi's engine asks them: one policy each, all of them mandatory."""

from __future__ import annotations

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

from ..recording import Registration
from . import RULES
from .rule import Rule, StackRule

NAME = "kos-fleet"


def policies() -> list[Policy]:
    """Return one policy for each rule."""
    return [_of_stack(rule) if isinstance(rule, StackRule) else _of_resource(rule) for rule in RULES]


def _of_resource(rule: Rule) -> Policy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if args.resource_type in rule.types:
            for message in rule.check(_resource(args)):
                report(message, args.urn)

    return ResourceValidationPolicy(rule.name, rule.description, validate, EnforcementLevel.MANDATORY)


def _of_stack(rule: StackRule) -> Policy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for culprit, message in rule.check([_resource(one) for one in args.resources]):
            report(message, culprit.urn if culprit else None)

    return StackValidationPolicy(rule.name, rule.description, validate, EnforcementLevel.MANDATORY)


def _resource(args: ResourceValidationArgs | PolicyResource) -> Registration:
    return Registration(
        urn=args.urn,
        type=args.resource_type,
        name=args.name,
        inputs=args.props,
        protect=args.opts.protect,
    )
