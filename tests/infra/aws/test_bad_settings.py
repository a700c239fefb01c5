"""Settings that cannot be right: one message that names key and rule, and nothing is registered."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra import fleet_files
from infra.conftest import ROOT, Example
from kos_infra import recording
from kos_infra.aws import credentials

Change = Callable[[dict[str, Any]], object]


def refusal(config: dict[str, str], program: str, change: Change, *, stack: str = "dev") -> str:
    """Run a program with changed settings and return its message; the recorder has seen nothing then."""
    key = next(key for key in config if key.endswith(":settings"))
    settings = json.loads(config[key])
    change(settings)
    seen: list[recording.Registration] = []
    with pytest.raises(pulumi.RunError) as refused:
        recording.record_file(
            ROOT / f"pulumi/{program}/__main__.py",
            project=f"kos-{program.replace('_', '-')}",
            stack=stack,
            config={**config, key: json.dumps(settings)},
            into=seen,
        )
    assert seen == []
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.fixture
def fleet(example: Example) -> Callable[[Change], str]:
    return lambda change: refusal(example("aws_fleet", "dev"), "aws_fleet", change)


@pytest.fixture
def cluster(example: Example) -> Callable[[Change], str]:
    return lambda change: refusal(example("aws_eks", "dev"), "aws_eks", change)


def put(*paths_and_values: Any) -> Change:
    """Return what sets values of the settings: `put("groups/0/zone", "eu-central-1a")`."""

    def change(settings: dict[str, Any]) -> None:
        for path, value in zip(paths_and_values[::2], paths_and_values[1::2], strict=True):
            *parents, last = (int(part) if part.isdigit() else part for part in path.split("/"))
            inner: Any = settings
            for part in parents:
                inner = inner[part]
            inner[last] = value

    return change


def drop(path: str) -> Change:
    """Return what leaves a value out."""

    def change(settings: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        inner: Any = settings
        for part in parents:
            inner = inner[part]
        del inner[last]

    return change


FLEET = [
    (
        "overlapping addresses",
        put("network/subnets/eu-central-1b", "10.20.8.0/21"),
        "network: subnets.eu-central-1b: 10.20.8.0/21 overlaps 10.20.0.0/20 of ",
    ),
    (
        "a subnet outside of the network",
        put("network/subnets/eu-central-1b", "10.21.0.0/20"),
        "network: subnets.eu-central-1b: 10.21.0.0/20 is outside of cidr 10.20.0.0/16",
    ),
    (
        "a network that is too small",
        put("network/cidr", "10.20.0.0/25"),
        "network: cidr: 10.20.0.0/25 must be between /16 and /24",
    ),
    (
        "a subnet that is too small for AWS",
        put("network/subnets/eu-central-1b", "10.20.16.0/29"),
        "subnets.eu-central-1b: 10.20.16.0/29 is too small",
    ),
    (
        "a subnet that is too small for its nodes",
        put("network/subnets/eu-central-1b", "10.20.16.0/28", "groups/1/nodes", 12),
        "eu-central-1b: 10.20.16.0/28 is too small; it has 16 addresses and needs 21",
    ),
    ("addresses that are no network", put("network/cidr", "10.20.0.1/16"), "network.cidr: "),
    ("one zone", drop("network/subnets/eu-central-1b"), "network.subnets: "),
    (
        "a zone that the region does not have",
        put("network/subnets/eu-central-1f", "10.20.32.0/20"),
        "network.subnets.eu-central-1f: eu-central-1 has no such zone; it has eu-central-1a, ",
    ),
    (
        "a region outside of the residency (A74)",
        put("residency", ["eu-west-1"]),
        "region: eu-central-1 is outside of the fleet's residency, eu-west-1",
    ),
    (
        "a region that does not exist",
        put("region", "eu-centrl-1"),
        "region: eu-centrl-1 is no region that this program knows",
    ),
    (
        "an instance type of the wrong architecture",
        put("groups/0/instance_types", ["t3.small"]),
        "groups.0.instance_types: t3.small is x86_64, and the group is aarch64",
    ),
    (
        "what is no instance type",
        put("groups/0/instance_types", ["small"]),
        "groups.0.instance_types: small is no instance type that nodes can run on",
    ),
    (
        "the same instance type twice",
        put("groups/0/instance_types", ["t4g.small", "t4g.small"]),
        "groups.0.instance_types: instance type t4g.small stands twice",
    ),
    (
        "an image that is not pinned",
        put("images/aarch64/id", "debian-12"),
        "images.aarch64.id: must match ^ami-",
    ),
    (
        "no image for an architecture",
        drop("images/aarch64"),
        "images.aarch64: is missing, and group canary-a needs it",
    ),
    ("a budget of zero", put("budget/monthly_usd", 0), "budget.monthly_usd: must be more than 0"),
    (
        "a budget that is no number",
        put("budget/monthly_usd", "120"),
        "budget.monthly_usd: must be a whole number without quotes",
    ),
    ("an account without quotes", put("account", 111122223333), "account: must be text; put it in quotes"),
    (
        "a group without a subnet",
        put("groups/0/zone", "eu-central-1c"),
        "settings: groups.0.zone: eu-central-1c has no subnet; those with one are eu-central-1a",
    ),
    ("two groups of one name", put("groups/1/name", "canary-a"), "groups: group canary-a stands twice"),
    ("no canary", put("groups/0/wave", 2), "groups: no group has wave 0"),
    (
        "more on demand than there are nodes",
        put("groups/1/on_demand_base", 3),
        "groups.1.on_demand_base: 3 is more than the 2 nodes there are",
    ),
    ("a class that does not exist", put("groups/0/class", "wizard"), "groups.0.class: must be 'griot'"),
    ("a tag that nobody owns", drop("tags/owner"), "tags: owner is missing; every resource says whose it is"),
    ("a tag of AWS's own", put("tags/aws:x", "y"), "tags: aws:x is set by AWS or by this program"),
    (
        "a tag with a line in it",
        put("tags/note", "a\nb"),
        "tags: note or its value has characters that a tag cannot hold",
    ),
    ("a tag of this program's own", put("tags/name", "x"), "tags: name is set by AWS or by this program"),
    ("a tag twice for IAM", put("tags/Owner", "x"), "tags: tag owner stands twice"),
    (
        "more tags than an object of a bucket takes",
        put(*(each for number in range(6) for each in (f"tags/t{number}", "x"))),
        "tags: must have 7 at most",
    ),
    (
        "more addresses than a budget tells",
        put("notify", [f"a{number}@demo.example" for number in range(11)]),
        "notify: must have 10 at most",
    ),
    (
        "a root device that is none",
        put("images/x86_64/root_device", "xvda"),
        "images.x86_64.root_device: must match",
    ),
    (
        "a private key for the administrator",
        put("node/admin_keys", ["-----BEGIN OPENSSH PRIVATE KEY-----"]),
        "node.admin_keys.0: must match",
    ),
    (
        "an administrator's key with a command",
        put("node/admin_keys", ['command="/bin/true" ssh-ed25519 AAAA']),
        "node.admin_keys.0: must match",
    ),
    (
        "a setting that does not exist",
        put("regoin", "eu-central-1"),
        "regoin: is no setting that this program knows",
    ),
    ("a name that no bucket could have", put("fleet", "Demo"), "fleet: must match"),
    ("no operator", put("node/operator_keys", []), "node.operator_keys: must have 1 or more"),
    (
        "a key that is none",
        put("node/operator_keys", ["ssh-dss AAAA"]),
        "node: a node refuses this: operator",
    ),
    ("a policy that a node refuses", put("node/policy", {"deadline_s": 10}), "node: a node refuses this: "),
    (
        "a trial that is longer than a first boot",
        put("node/install", True, "node/policy", {"deadline_s": 700}),
        "node: policy.deadline_s: 700 is longer than the 600 seconds that a machine has",
    ),
    ("a policy key that does not exist", put("node/policy", {"bake": 10}), "node: a node refuses this: "),
    ("a root of trust that is not there", put("trust_root", "nowhere.json"), "trust_root: "),
    ("a path that is none", put("trust_root", "\0"), "cannot be read: embedded null byte"),
    ("a folder that is none", put("bundle", "\0"), "cannot be read: embedded null byte"),
    ("a mapping for a list", put("groups", {"canary": {}}), "settings: groups: must be a list"),
    ("a text for a mapping", put("budget", "much"), "settings: budget: must be a mapping"),
    ("a bundle that is not there", put("bundle", "nowhere"), "`make collection` makes it"),
    ("a mail address that is none", put("notify", ["nobody"]), "notify.0: must match"),
]

CLUSTER = [
    (
        "an API open to the world",
        put("public_from", ["0.0.0.0/0"]),
        "public_from: 0.0.0.0/0 is most of the world",
    ),
    ("an addon without a version", put("addons/coredns", "latest"), "addons.coredns: must match"),
    ("an addon that is missing", drop("addons/vpc-cni"), "addons: vpc-cni is missing"),
    ("an addon that is not known", put("addons/helm", "v1.0.0-eksbuild.1"), "addons: helm is no addon"),
    ("nobody who may manage it", put("access/0/may", "view"), "access: nobody is admin"),
    (
        "an admin of one namespace",
        put("access/0/namespaces", ["kos"]),
        "access.0.namespaces: an admin is one of the whole cluster",
    ),
    (
        "machines of another version",
        put("groups/0/release", "1.33.1-20261105"),
        "groups.0.release: 1.33.1-20261105 is not of version 1.34",
    ),
    (
        "services among the machines",
        put("service_cidr", "10.30.128.0/20"),
        "service_cidr: 10.30.128.0/20 overlaps network.cidr 10.30.0.0/16",
    ),
    (
        "services in addresses that are others'",
        put("service_cidr", "8.8.0.0/16"),
        "service_cidr: 8.8.0.0/16 must be between /12 and /24, in one of 10.0.0.0/8, ",
    ),
    (
        "too few services",
        put("service_cidr", "172.20.0.0/25"),
        "service_cidr: 172.20.0.0/25 must be between /12 and /24",
    ),
    (
        "no room for pods",
        put("network/subnets/eu-central-1b", "10.30.64.0/26"),
        "network.subnets.eu-central-1b: 10.30.64.0/26 is too small",
    ),
    (
        "fewer machines at most than there are",
        put("groups/0/max_nodes", 1),
        "groups.0.max_nodes: 1 is less than the 2 nodes there are",
    ),
    (
        "an instance type of the wrong architecture",
        put("groups/0/instance_types", ["m7i.large"]),
        "groups.0.instance_types: m7i.large is x86_64, and the group is aarch64",
    ),
    (
        "a region outside of the residency (A74)",
        put("residency", ["eu-west-1"]),
        "region: eu-central-1 is outside of the fleet's residency",
    ),
    ("a budget of zero", put("budget/monthly_usd", 0), "budget.monthly_usd: must be more than 0"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in FLEET], ids=[case[0] for case in FLEET])
def test_a_fleet_refuses(fleet: Callable[[Change], str], change: Change, message: str) -> None:
    assert message in fleet(change)


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in CLUSTER], ids=[case[0] for case in CLUSTER]
)
def test_a_cluster_refuses(cluster: Callable[[Change], str], change: Change, message: str) -> None:
    assert message in cluster(change)


def test_user_data_over_the_limit_is_refused_with_what_makes_it_long(
    fleet: Callable[[Change], str], tmp_path: Path
) -> None:
    root = tmp_path / "root.json"
    root.write_bytes(fleet_files.root_of_trust(padding=40_000))
    message = fleet(put("trust_root", str(root)))
    assert "groups: canary-a: user data has" in message
    assert "at most 16384 are allowed" in message
    assert f"{root.stat().st_size} bytes of it are the trust root" in message


def test_a_root_of_trust_that_has_expired_is_refused(fleet: Callable[[Change], str], tmp_path: Path) -> None:
    root = tmp_path / "root.json"
    root.write_bytes(fleet_files.root_of_trust(expires=datetime.now(UTC) - timedelta(days=1)))
    assert "node: a node refuses this: trust_root: expired on" in fleet(put("trust_root", str(root)))


def test_a_bundle_that_was_changed_is_refused(fleet: Callable[[Change], str], tmp_path: Path) -> None:
    settings = fleet_files.make(tmp_path / "files")
    archive = next(Path(settings["bundle"]).glob("*.tar.gz"))
    archive.write_bytes(archive.read_bytes() + b"x")
    assert "has the digest" in fleet(put("bundle", settings["bundle"]))


def test_a_description_that_is_none_is_refused(fleet: Callable[[Change], str], tmp_path: Path) -> None:
    (tmp_path / "kosctl.json").write_text('["not", "an", "object"]')
    assert "does not describe a bundle of kosctl" in fleet(put("bundle", str(tmp_path)))


def test_a_stack_whose_name_fits_nowhere_is_refused(example: Example) -> None:
    message = refusal(example("aws_fleet", "dev"), "aws_fleet", lambda _: None, stack="Dev_1")
    assert message.startswith("stack Dev_1: must be lower-case letters")


def test_names_that_are_too_long_together_are_refused(example: Example) -> None:
    message = refusal(example("aws_fleet", "dev"), "aws_fleet", put("fleet", "f" * 32), stack="s" * 16)
    assert message.startswith("fleet and stack: bucket ")
    assert message.endswith("has 69 characters, 63 are allowed")


def test_a_stack_without_settings_is_refused(credentials: None) -> None:
    with pytest.raises(pulumi.RunError, match="kos-aws-fleet:settings is missing"):
        recording.record_file(
            ROOT / "pulumi/aws_fleet/__main__.py", project="kos-aws-fleet", stack="dev", config={}
        )


def test_missing_credentials_are_named_with_every_place_that_was_looked_at(
    example: Example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = example("aws_fleet", "dev")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    message = refusal(config, "aws_fleet", lambda _: None)
    assert "credentials of AWS are missing" in message
    assert "AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY" in message
    assert str(tmp_path / "home/.aws/credentials") in message
    assert "of no account" not in message


def test_wrong_settings_are_told_before_missing_credentials(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = example("aws_fleet", "dev")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "budget.monthly_usd" in refusal(config, "aws_fleet", put("budget/monthly_usd", 0))


@pytest.mark.parametrize(
    ("file", "text", "profile"),
    [
        ("credentials", "[default]\naws_access_key_id = x\n", None),
        ("credentials", "[team]\naws_access_key_id = x\n", "team"),
        ("config", "[profile team]\nsso_session = x\n", "team"),
        ("config", "[default]\ncredential_source = Ec2InstanceMetadata\n", None),
    ],
)
def test_a_profile_in_a_file_is_enough(tmp_path: Path, file: str, text: str, profile: str | None) -> None:
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / file).write_text(text)
    environment = {"HOME": str(tmp_path)}
    credentials.check({**environment, "AWS_PROFILE": profile or ""})


@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "/run/token", "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/ci"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/"},
    ],
)
def test_a_role_of_the_place_is_enough(environment: dict[str, str]) -> None:
    credentials.check(environment)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[other]\naws_access_key_id = x\n", "[default]\n", "[default]\nregion = eu-central-1\n"),
        *("not a file of this kind", "\x00\xff"),
    ],
)
def test_a_file_without_the_profile_is_not(tmp_path: Path, text: str) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(text, "latin-1")
    with pytest.raises(Exception, match="have no profile default"):
        credentials.check({"HOME": str(tmp_path)})
