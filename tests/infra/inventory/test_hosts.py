"""An inventory follows its cluster: groups, variables and what runs, with no hand-copied value (D07, A24)."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.utils.display import Display

from ansible_collections.kos.fleet.plugins.plugin_utils import _cloud

from .conftest import Read, launch

pytestmark = pytest.mark.usefixtures("cloud")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that AWS is asked for."""
    made: list[str] = []
    original = botocore.client.BaseClient._make_api_call

    def recorded(self: Any, operation: str, arguments: Any) -> Any:
        made.append(operation)
        return original(self, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", recorded)
    return made


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Ansible warns of."""
    said: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, message, *_args, **_kwargs: said.append(message))
    return said


def test_running_instances_are_nodes_in_groups_by_zone_class_arch_and_wave(
    contract: dict[str, Any], read: Read
) -> None:
    (canary,) = launch(contract, "canary")
    rest = launch(contract, "rest", 2)

    groups = read().get_groups_dict()

    assert sorted(groups["nodes"]) == sorted([canary, *rest])
    assert groups["zone_eu_central_1a"] == groups["wave_0"] == groups["arch_aarch64"] == [canary]
    assert sorted(groups["zone_eu_central_1b"]) == sorted(groups["arch_x86_64"]) == sorted(rest)
    assert sorted(groups["class_griot"]) == sorted(groups["stack_demo_dev"]) == sorted(groups["nodes"])
    assert groups["mirrors"] == []


def test_what_the_playbooks_want_to_know_comes_from_the_contract(
    contract: dict[str, Any], read: Read
) -> None:
    launch(contract, "canary")

    groups = read().groups

    stack = groups["stack_demo_dev"].vars
    assert stack["bootstrap_fleet"] == "demo"
    assert stack["bootstrap_mirrors"] == ["https://mirror.demo.example/"]
    assert groups["class_griot"].vars == {"bootstrap_class": "griot"}
    # The group's name cannot hold hyphens, the node's zone does.
    assert groups["zone_eu_central_1a"].vars == {"bootstrap_zone": "eu-central-1a"}


def test_a_node_is_reached_by_ssh_through_a_session_of_its_own_instance(
    contract: dict[str, Any], read: Read
) -> None:
    (node,) = launch(contract, "canary")

    inventory = read()

    words = shlex.split(inventory.groups["stack_demo_dev"].vars["ansible_ssh_common_args"])
    assert shlex.split(words[3].removeprefix("ProxyCommand=")) == (
        "aws ssm start-session --region eu-central-1 --document-name AWS-StartSSHSession "
        "--parameters portNumber=%p --target %h"
    ).split(" ")
    assert inventory.hosts[node].vars["ansible_host"] == node


def test_what_the_connection_plugin_of_ssm_needs_is_set_for_other_content(
    contract: dict[str, Any], read: Read
) -> None:
    (node,) = launch(contract, "canary")

    inventory = read()

    assert inventory.hosts[node].vars["ansible_aws_ssm_instance_id"] == node
    assert inventory.groups["stack_demo_dev"].vars["ansible_aws_ssm_region"] == "eu-central-1"
    assert inventory.groups["stack_demo_dev"].vars["ansible_aws_ssm_bucket_name"] == "demo-transfer"


def test_an_instance_that_is_stopped_or_of_another_stack_is_no_host(
    contract: dict[str, Any], read: Read
) -> None:
    stopped, running = launch(contract, "rest", 2)
    boto3.client("ec2", region_name=contract["region"]).stop_instances(InstanceIds=[stopped])
    launch({**contract, "instances": {"tags": {"kos:fleet": "demo", "kos:stack": "prod"}}}, "rest")

    assert list(read().hosts) == [running]


def test_an_instance_of_no_group_of_the_contract_is_left_out_and_named(
    contract: dict[str, Any], read: Read, warnings: list[str]
) -> None:
    (stranger,) = launch(contract, "by-hand")
    (node,) = launch(contract, "canary")

    assert list(read().hosts) == [node]
    assert any(stranger in said and "left out" in said for said in warnings)


def test_a_fleet_of_which_nothing_runs_is_empty_and_says_so(read: Read, warnings: list[str]) -> None:
    inventory = read()

    assert not inventory.hosts
    assert {"nodes", "mirrors", "zone_eu_central_1a", "wave_1"} <= set(inventory.groups)
    assert any("no instance of fleet demo runs in eu-central-1" in said for said in warnings)


def test_an_instance_in_another_zone_than_its_group_is_refused(contract: dict[str, Any], read: Read) -> None:
    (node,) = launch(contract, "canary", zone="eu-central-1c")

    with pytest.raises(
        AnsibleParserError,
        match=f"instance {node} is in zone eu-central-1c, but its group canary is in zone eu-central-1a",
    ):
        read()


def test_credentials_of_another_account_are_refused_where_it_has_no_such_instance(
    contract: dict[str, Any], read: Read, cloud: None, tmp_path: Path
) -> None:
    (tmp_path / "contract.json").write_text(json.dumps({**contract, "account": "999999999999"}))

    with pytest.raises(
        AnsibleParserError, match=r"are those of account 123456789012; .* of account 999999999999"
    ):
        read()


def test_instances_of_another_account_are_refused(
    contract: dict[str, Any], read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_ACCOUNT_ID", "999999999999")
    launch(contract, "canary")

    with pytest.raises(
        AnsibleParserError, match=r"are those of account 999999999999; .* of account 123456789012"
    ):
        read()


@pytest.mark.parametrize(("nodes", "pages"), [(0, 1), (4, 1), (5, 1), (11, 3)])
def test_each_page_of_instances_costs_one_call_and_nothing_else_does(
    contract: dict[str, Any],
    read: Read,
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    nodes: int,
    pages: int,
) -> None:
    monkeypatch.setattr(_cloud, "PAGE", 5)
    for _ in range(nodes):
        launch(contract, "rest")
    calls.clear()

    assert len(read().hosts) == nodes
    # Where there are none, it is asked once more: whose credentials these are.
    assert calls == ["DescribeInstances"] * pages + ["GetCallerIdentity"] * (nodes == 0)


def test_a_key_that_a_later_program_added_to_the_format_is_let_pass(
    contract: dict[str, Any], read: Read, tmp_path: Path
) -> None:
    (node,) = launch(contract, "canary")
    contract["observability"] = {"url": "https://metrics.demo.example/"}
    contract["groups"][0]["gpu"] = True
    (tmp_path / "contract.json").write_text(json.dumps(contract))

    inventory = read(compose={"metrics": "kos_contract.observability.url"})

    assert inventory.hosts[node].vars["metrics"] == "https://metrics.demo.example/"


def test_hosts_compose_and_group_what_the_cloud_says_of_them(contract: dict[str, Any], read: Read) -> None:
    (north,) = launch(contract, "canary", tribe="north")
    (south,) = launch(contract, "rest", tribe="south")

    inventory = read(
        compose={
            "bootstrap_tribe": "kos_instance.tags.tribe",
            "dns": "kos_instance.group ~ '.' ~ kos_contract.dns_zone",
        },
        groups={"arm": "kos_instance.type.startswith('m6g')"},
        keyed_groups=[{"key": "kos_instance.tags.tribe", "prefix": "tribe"}],
    )

    assert inventory.hosts[north].vars["bootstrap_tribe"] == "north"
    assert inventory.hosts[south].vars["dns"] == "rest.demo.internal"
    groups = inventory.get_groups_dict()
    assert sorted(groups["arm"]) == sorted([north, south])
    assert groups["tribe_south"] == [south]


def test_an_expression_that_fails_is_an_error_where_strict_is_said(
    contract: dict[str, Any], read: Read
) -> None:
    (node,) = launch(contract, "canary")

    assert "lost" not in read(compose={"lost": "kos_instance.tags.absent"}).hosts[node].vars
    with pytest.raises(AnsibleError, match="lost"):
        read(strict=True, compose={"lost": "kos_instance.tags.absent"})
