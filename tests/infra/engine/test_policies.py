"""The policy pack where it is used: over what the engine made, as a process, and by the engine itself."""

from __future__ import annotations

import copy
from typing import Any

import pulumi
from pulumi_aws.ec2.internet_gateway import InternetGateway
from pulumi_aws.provider import Provider

from infra.conftest import ROOT
from infra.engine import aws
from infra.engine.harness import Engine, Stack
from infra.engine.pack import started
from kos_infra import policies
from kos_infra.recording import from_export

PACK = ROOT / "pulumi/policies"
PROGRAM = ROOT / "pulumi/aws_fleet"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"


def weakened(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a state in which one template lets the first version of the metadata service be used."""
    changed = copy.deepcopy(resources)
    template = next(each for each in changed if each["type"] == TEMPLATE)
    template["inputs"]["metadataOptions"]["httpTokens"] = "optional"
    return changed


def broken(resources: list[dict[str, Any]]) -> list[str]:
    """Return the rules that a state breaks."""
    made = from_export({"deployment": {"resources": resources}})
    assert made
    return [violation.rule for violation in policies.violations(made, policies.RULES)]


def test_what_the_engine_made_keeps_every_policy(fleet: Stack) -> None:
    assert broken(fleet.state()) == []
    assert broken(weakened(fleet.state())) == ["imdsv2"]


def test_the_started_pack_says_the_same_over_grpc(fleet: Stack) -> None:
    with started(PACK) as pack:
        assert pack.policies() == {rule.name for rule in policies.RULES}
        assert pack.ask(fleet.state()) == []
        (finding,) = pack.ask(weakened(fleet.state()))
    assert (finding.policy, finding.mandatory) == ("imdsv2", True)
    assert TEMPLATE in finding.urn


def test_the_engine_lets_the_example_pass_the_pack(engine: Engine) -> None:
    outcome = engine.stack(PROGRAM, "dev").preview(policy_packs=[str(PACK)])
    assert outcome.error == ""
    assert "kos-fleet" in outcome.text


def test_the_engine_makes_nothing_that_breaks_a_policy(engine: Engine) -> None:
    def stray() -> None:
        account = Provider("stray", region="eu-central-1", allowed_account_ids=[aws.ACCOUNT])
        alone = pulumi.ResourceOptions(provider=account)
        InternetGateway("way-in", opts=alone)

    stack = engine.stack(PROGRAM, "dev", also=stray)
    outcome = stack.up(policy_packs=[str(PACK)])
    assert outcome.error != ""
    assert "an internet gateway is a way in" in outcome.text
    assert engine.cloud.all(name="way-in") == []
