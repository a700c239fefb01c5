"""What is secret in a program is secret in all that the engine keeps and prints of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.engine.harness import Engine

SECRET = "correct horse battery staple"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that puts a secret of its configuration into a resource and into an output."""
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("{name: kos-secrets, runtime: python}")
    (folder / "Pulumi.dev.yaml").write_text("config: {}")
    (folder / "__main__.py").write_text(
        "import pulumi\n"
        "from pulumi_aws.provider import Provider\n"
        "from pulumi_aws.ssm.parameter import Parameter\n"
        "alone = pulumi.ResourceOptions(provider=Provider('aws', region='eu-central-1'))\n"
        "secret = pulumi.Config().require_secret('password')\n"
        "made = Parameter('token', type='SecureString', value=secret, opts=alone)\n"
        "pulumi.export('token', made.value)\n"
    )
    return folder


def test_a_secret_is_nowhere_in_the_clear_in_state_plan_or_output(
    engine: Engine, program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stack = engine.stack(program, "dev")
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
