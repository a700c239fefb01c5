"""The project's policies: rules over what a program registers, run by tests and by the engine."""

from . import aws, kubernetes
from .rule import Rule, StackRule, Violation, violations

RULES: tuple[Rule | StackRule, ...] = (*aws.RULES, *kubernetes.RULES)

__all__ = ["RULES", "Rule", "StackRule", "Violation", "violations"]
