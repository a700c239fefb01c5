"""What is secret in a program is secret in all that the engine keeps and prints of it."""

from __future__ import annotations

from pathlib import Path

import pulumi
import pytest
from pulumi_aws.provider import Provider
from pulumi_aws.ssm.parameter import Parameter

from infra.conftest import ROOT
from infra.engine import aws
from infra.engine.harness import Engine

SECRET = "correct horse battery staple"


def test_a_secret_is_nowhere_in_the_clear_in_state_plan_or_output(
    engine: Engine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def parameter() -> None:
        secret = pulumi.Config().require_secret("password")
        account = Provider("secrets", region="eu-central-1", allowed_account_ids=[aws.ACCOUNT])
        made = Parameter(
            "token", type="SecureString", value=secret, opts=pulumi.ResourceOptions(provider=account)
        )
        pulumi.export("token", made.value)

    stack = engine.stack(ROOT / "pulumi/aws_fleet", "dev", also=parameter)
    stack.configure({"password": SECRET}, secret=True)
    plan = tmp_path / "plan.json"
    printed = [stack.preview(plan=plan).text, stack.up(plan=plan).text, stack.refresh().text]
    assert stack.outputs()["token"] == SECRET
    assert engine.cloud.one("aws:ssm/parameter:Parameter").state["value"] == SECRET

    kept = [path for folder in ("state", "home", "work") for path in (engine.folder / folder).rglob("*")]
    files = [path for path in [*kept, plan] if path.is_file()]
    assert any(path.name == "dev.json" for path in files)
    assert [path for path in files if SECRET in path.read_text(errors="replace")] == []
    assert not any(SECRET in text for text in [*printed, *capfd.readouterr()])
    assert "[secret]" in printed[1]
