"""What a unit says is what its objects say: how it runs, what it may, whom it talks to (C11, A04)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.kubernetes.samples import IMAGE, container, document, one, pod, rendered
from kos_infra.kubernetes.objects import literal, quantity
from kosnode import render as systemd
from kosnode import unit
from kosnode.errors import InputError

ROUNDS = settings(max_examples=int(os.environ.get("KOS_ROUNDS", "20")), deadline=None, print_blob=True)


def test_a_unit_runs_as_a_deployment_of_its_image_with_nothing_but_its_own_rights() -> None:
    stack = rendered()
    spec, runs = pod(stack), container(stack)

    assert one(stack, "Deployment/web").body["spec"]["replicas"] == 1
    assert runs["image"] == IMAGE
    assert "command" not in runs
    assert runs["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] >= 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert one(stack, "Namespace/namespace").body["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }


def test_bounds_of_a_unit_are_limits_and_what_is_kept_for_it_is_requested() -> None:
    bounds = {"max": {"memory": "1G", "cpu": "150%"}, "min": {"memory": "256M"}}

    assert container(rendered(document(resources=bounds)))["resources"] == {
        "limits": {"cpu": "1500m", "memory": "1Gi"},
        "requests": {"cpu": "1500m", "memory": "256Mi"},
    }


def test_a_stack_may_give_a_unit_other_bounds_as_a_node_may() -> None:
    stack = rendered(web={"resources": {"max": {"memory": "512M"}}})

    assert container(stack)["resources"]["limits"] == {"cpu": "500m", "memory": "512Mi"}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "Deployment"),
        ({"max_replicas": 3}, "Deployment"),
        ({"max_replicas": 1}, "StatefulSet"),
        ({"state": {"size": "1G"}}, "StatefulSet"),
        ({"affinity": {"every_node": True}}, "DaemonSet"),
    ],
)
def test_what_a_unit_says_of_its_replicas_decides_what_runs_it(changes: dict[str, Any], kind: str) -> None:
    stack = rendered(document(**changes))

    assert stack.workloads["web"].kind == kind
    assert one(stack, f"{kind}/web").body["kind"] == kind


def test_a_change_never_makes_more_replicas_than_the_unit_allows() -> None:
    def rolling(**changes: Any) -> dict[str, Any]:
        spec = one(rendered(document(**changes), web={"replicas": 2}), "Deployment/web").body["spec"]
        return dict(spec["strategy"]["rollingUpdate"])

    assert rolling(max_replicas=2) == {"maxSurge": 0, "maxUnavailable": 1}
    assert rolling() == {"maxSurge": "25%", "maxUnavailable": 0}


def test_the_state_of_a_unit_of_which_there_is_one_is_a_volume_that_outlives_it() -> None:
    stack = rendered(document(state={"size": "20G"}), web={"storage_class": "fast"})
    claim = one(stack, "PersistentVolumeClaim/web-state")

    assert claim.body["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "20Gi"}},
        "storageClassName": "fast",
    }
    assert claim.protect
    assert one(stack, "Namespace/namespace").protect
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "web-state"}} in pod(
        stack, "StatefulSet/web"
    )["volumes"]
    assert {"name": "state", "mountPath": "/var/lib/kos/state/web"} in container(stack, "StatefulSet/web")[
        "volumeMounts"
    ]
    assert claim.key in one(stack, "StatefulSet/web").after


def test_replicas_with_state_have_a_volume_each() -> None:
    stack = rendered(document(state={"size": "1G"}, max_replicas=3), web={"replicas": 3})
    spec = one(stack, "StatefulSet/web").body["spec"]

    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "state"
    assert "state" not in {volume["name"] for volume in pod(stack, "StatefulSet/web")["volumes"]}
    assert not [each for each in stack.objects if each.body["kind"] == "PersistentVolumeClaim"]
    assert spec["serviceName"] == "web"
    assert one(stack, "Service/web").body["spec"]["clusterIP"] == "None"


def test_state_of_no_size_and_temporary_files_are_gone_with_the_pod_and_bounded() -> None:
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod(rendered())["volumes"]}

    assert volumes == {"tmp": {"sizeLimit": "64Mi"}, "state": {"sizeLimit": "64Mi"}}


@pytest.mark.parametrize(
    ("health", "action"),
    [
        (
            {"http": {"url": "http://127.0.0.1:8080/h?deep=1"}},
            {"httpGet": {"path": "/h?deep=1", "port": 8080, "scheme": "HTTP"}},
        ),
        (
            {"http": {"url": "https://[::1]:8080"}},
            {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTPS"}},
        ),
        ({"tcp": {"port": 8080}}, {"tcpSocket": {"port": 8080}}),
        ({"command": ["/bin/check", "$(HOME)"]}, {"exec": {"command": ["/bin/check", "$$(HOME)"]}}),
    ],
)
def test_a_health_check_starts_a_unit_puts_it_into_service_and_restarts_it(
    health: dict[str, Any], action: dict[str, Any]
) -> None:
    runs = container(rendered(document(health=[{**health, "timeout": "2s"}], entry={"timeout": "2m"})))

    for name, failures in (("startupProbe", 24), ("readinessProbe", 3), ("livenessProbe", 3)):
        assert runs[name] == {
            **action,
            "periodSeconds": 5,
            "timeoutSeconds": 2,
            "failureThreshold": failures,
        }


def test_without_checks_the_one_port_has_to_accept_connections() -> None:
    assert container(rendered())["livenessProbe"]["tcpSocket"] == {"port": 8080}
    assert "livenessProbe" not in container(rendered(document(network={})))


def test_a_port_that_answers_http_is_not_asked_twice() -> None:
    checks = [{"http": {"url": "http://localhost:8080/"}}, {"tcp": {"port": 8080}}]

    assert "httpGet" in container(rendered(document(health=checks)))["livenessProbe"]


def test_what_kubernetes_does_not_hold_to_is_said() -> None:
    checks = [{"http": {"url": "http://localhost:8080/", "json": {"/status": "ok"}}}]
    bounds = {"max": {"memory": "1M", "cpu": "1%", "tasks": 8}}

    notes = rendered(document(health=checks, resources=bounds)).notes

    assert len(notes) == 2
    assert "does not look at what the answer says" in notes[0]
    assert "resources.max.tasks" in notes[1]
    assert not rendered().notes


def test_a_unit_talks_to_nobody_but_those_on_its_lists() -> None:
    lists = {
        "ingress": [{"port": 8080, "from": ["localhost", "10.0.0.0/8"]}, {"port": 9000, "proto": "udp"}],
        "egress": [
            {"host": "192.0.2.7", "port": 443},
            {"host": "localhost", "port": 1},
            {"host": "2001:db8::/32"},
        ],
    }
    stack = rendered(document(network=lists))
    spec = one(stack, "NetworkPolicy/web").body["spec"]

    assert spec["ingress"] == [
        {"ports": [{"protocol": "TCP", "port": 8080}], "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        {"ports": [{"protocol": "UDP", "port": 9000}]},
    ]
    out, out_six, names = spec["egress"]
    assert out == {
        "to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}],
        "ports": [{"protocol": "TCP", "port": 443}],
    }
    assert out_six == {"to": [{"ipBlock": {"cidr": "2001:db8::/32"}}]}
    assert {port["port"] for port in names["ports"]} == {53}
    assert one(stack, "NetworkPolicy/nothing-else").body["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }


@pytest.mark.parametrize("network", [{}, {"ingress": [{"port": 8080, "from": ["localhost"]}]}])
def test_a_unit_with_nothing_on_its_lists_is_cut_off(network: dict[str, Any]) -> None:
    stack = rendered(document(network=network))
    spec = one(stack, "NetworkPolicy/web").body["spec"]

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == spec["egress"] == []
    assert not [each for each in stack.objects if each.body["kind"] == "Service"]


def test_a_unit_that_may_go_anywhere_may_not_go_where_clouds_hand_out_credentials() -> None:
    stack = rendered(document(network={"egress": [{"host": "any", "port": 443}]}))
    anywhere = one(stack, "NetworkPolicy/web").body["spec"]["egress"][0]

    assert {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}} in anywhere["to"]
    assert anywhere["ports"] == [{"protocol": "TCP", "port": 443}]


def test_replicas_are_spread_as_the_unit_wants() -> None:
    def spread(affinity: dict[str, Any]) -> list[tuple[str, str]]:
        constraints = pod(rendered(document(affinity=affinity))).get("topologySpreadConstraints", [])
        return [(each["topologyKey"], each["whenUnsatisfiable"]) for each in constraints]

    assert spread({"spread": "zone"}) == [
        ("topology.kubernetes.io/zone", "DoNotSchedule"),
        ("kubernetes.io/hostname", "ScheduleAnyway"),
    ]
    assert spread({"spread": "node"}) == [("kubernetes.io/hostname", "DoNotSchedule")]
    assert spread({}) == []


def test_the_core_goes_before_agents_where_there_is_too_little_room() -> None:
    stack = rendered(document(tier=0), document(id="late", tier=3))
    value = {
        each.body["metadata"]["name"]: each.body["value"]
        for each in stack.objects
        if each.body["kind"] == "PriorityClass"
    }

    assert pod(stack)["priorityClassName"] == "kos-tier-0"
    assert value["kos-tier-0"] > value["kos-tier-1"] > value["kos-tier-2"] > value["kos-tier-3"] > 0


def test_several_replicas_are_taken_down_one_at_a_time_and_a_single_one_does_not_block_a_machine() -> None:
    def budgets(replicas: int) -> list[Any]:
        stack = rendered(web={"replicas": replicas})
        return [
            (each.body["spec"]["maxUnavailable"], each.body["spec"]["unhealthyPodEvictionPolicy"])
            for each in stack.objects
            if each.body["kind"] == "PodDisruptionBudget"
        ]

    assert budgets(1) == []
    # What is not ready may go: it would keep its machine from being emptied, and a canary is alone.
    assert budgets(2) == [(1, "AlwaysAllow")]


def test_a_canary_in_its_zone_is_ready_for_a_while_before_any_other_replica_is_changed() -> None:
    zone = {"zone": "a", "bake_s": 120}
    stack = rendered(
        document(), document(id="other"), canary=zone, web={"replicas": 4}, other={"replicas": 2}
    )
    canary, main = one(stack, "Deployment/web-canary"), one(stack, "Deployment/web")

    assert (canary.body["spec"]["replicas"], main.body["spec"]["replicas"]) == (1, 3)
    assert canary.body["spec"]["minReadySeconds"] == 120
    assert canary.body["spec"]["progressDeadlineSeconds"] > 120
    terms = pod(stack, canary.key)["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert terms["nodeSelectorTerms"] == [
        {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}
    ]
    # A canary of one unit that fails stops all of them.
    assert {"Deployment/web-canary", "Deployment/other-canary"} <= set(main.after)
    # Both answer behind the one name.
    chosen = one(stack, "Service/web").body["spec"]["selector"]
    for workload in (canary, main):
        assert chosen.items() <= workload.body["spec"]["template"]["metadata"]["labels"].items()
    assert canary.body["spec"]["selector"] != main.body["spec"]["selector"]


def test_a_canary_with_state_is_ready_only_when_it_has_answered_for_the_whole_bake() -> None:
    unit = document(state={"size": "1G"}, max_replicas=3)
    stack = rendered(unit, canary={"zone": "a", "bake_s": 62}, web={"replicas": 3})

    probe = container(stack, "StatefulSet/web-canary")["readinessProbe"]
    assert (probe["successThreshold"], probe["periodSeconds"]) == (13, 5)
    for other in ("livenessProbe", "startupProbe"):
        assert "successThreshold" not in container(stack, "StatefulSet/web-canary")[other]
    assert "successThreshold" not in container(stack, "StatefulSet/web")["readinessProbe"]


def test_a_replica_with_state_that_never_gets_ready_does_not_stop_the_change_that_mends_it() -> None:
    stack = rendered(document(state={"size": "1G"}))

    assert one(stack, "StatefulSet/web").body["spec"]["podManagementPolicy"] == "Parallel"


def test_the_longest_name_leaves_room_for_what_a_canary_with_state_adds_to_it() -> None:
    name = "w" * 45
    unit = document(id=name, state={"size": "1G"}, max_replicas=2)
    stack = rendered(unit, canary={"zone": "a"}, **{name: {"replicas": 2}})

    canary = stack.workloads[name].canary
    assert canary is not None
    # controller-revision-hash, which has this form, is a label.
    assert len(f"{canary.name}-0123456789") == 63
    with pytest.raises(InputError, match="must match"):
        rendered(document(id=f"{name}w"))


def test_a_unit_on_every_machine_is_proven_on_those_of_one_zone() -> None:
    stack = rendered(document(affinity={"every_node": True}), canary={"zone": "a"})

    def zones(key: str) -> tuple[str, list[str]]:
        rules = pod(stack, key)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ((rule,),) = (term["matchExpressions"] for term in rules["nodeSelectorTerms"])
        return rule["operator"], rule["values"]

    assert zones("DaemonSet/web-canary") == ("In", ["a"])
    assert zones("DaemonSet/web") == ("NotIn", ["a"])
    assert "DaemonSet/web-canary" in one(stack, "DaemonSet/web").after


def test_a_unit_of_which_there_is_one_has_no_canary() -> None:
    stack = rendered(document(max_replicas=1), canary={"zone": "a"})

    assert stack.workloads["web"].canary is None
    assert "affinity" not in pod(stack, "StatefulSet/web")


def test_another_configuration_is_another_pod_and_the_same_is_not() -> None:
    def name(greeting: str) -> str:
        stack = rendered(web={"config": {"greeting": greeting}})
        volumes = {volume["name"]: volume for volume in pod(stack)["volumes"]}
        held = one(stack, "ConfigMap/web-config").body
        assert volumes["config"]["configMap"]["name"] == held["metadata"]["name"]
        assert held["data"] == {"web.json": f'{{"greeting":"{greeting}"}}'}
        assert held["immutable"] is True
        return str(held["metadata"]["name"])

    assert name("hello") == name("hello")
    assert name("hello") != name("good day")


def test_a_way_in_from_outside_is_by_tls_to_a_port_that_is_open_to_anybody() -> None:
    expose = {"host": "web.example", "port": 8080, "tls_secret": "web-tls"}
    stack = rendered(web={"expose": expose})
    spec = one(stack, "Ingress/web").body["spec"]

    assert spec["tls"] == [{"hosts": ["web.example"], "secretName": "web-tls"}]
    (rule,) = spec["rules"]
    assert rule["host"] == "web.example"
    assert rule["http"]["paths"][0]["backend"] == {"service": {"name": "web", "port": {"number": 8080}}}


NATIVE = document(
    format="native",
    entry={"command": ["bin/web", "--say", "$HOME $(id) 100%"], "env": {"A": "$(B)"}, "timeout": "30s"},
    resources={"max": {"memory": "128M", "cpu": "50%"}, "min": {"memory": "64M"}},
    health=[{"http": {"url": "http://127.0.0.1:8080/h"}}],
)


def test_one_file_says_the_same_to_systemd_and_to_kubernetes() -> None:
    slot = Path("/var/lib/kos/releases") / ("ab" * 32)
    found = unit.validate(NATIVE, "unit.yml")
    service = systemd.render([found], slot, lambda _: "hash", user_id=lambda _: 1000)
    lines = service.files["units/kos-web.service"].decode().splitlines()
    stack = rendered(NATIVE)
    runs = container(stack)

    # What runs, where, with which words; each side keeps its own signs from being expanded.
    assert f'ExecStart="{slot}/tree/bin/web" "--say" "$$HOME $$(id) 100%%"' in lines
    assert runs["command"] == ["/opt/kos/tree/bin/web", "--say", "$$HOME $$(id) 100%"]
    assert runs["workingDir"] == "/opt/kos/tree"
    # Bounds.
    assert {"MemoryMax=134217728", "MemoryMin=67108864", "CPUQuota=50%"} <= set(lines)
    assert runs["resources"]["limits"] == {"memory": "128Mi", "cpu": "500m"}
    assert runs["resources"]["requests"]["memory"] == "64Mi"
    # Ports, and nothing else.
    assert {"SocketBindDeny=any", "SocketBindAllow=tcp:8080"} <= set(lines)
    assert [port["containerPort"] for port in runs["ports"]] == [8080]
    # Environment.
    told = {one["name"]: one["value"] for one in runs["env"]}
    assert 'Environment="KOS_UNIT=web"' in lines
    assert (told["KOS_UNIT"], told["A"]) == ("web", "$$(B)")
    assert 'Environment="KOS_UNIT_CONFIG=/etc/kos/unit.d/web.json"' in lines
    assert told["KOS_UNIT_CONFIG"] == "/etc/kos/unit.d/web.json"
    # Health, and time to start.
    assert service.units_json["units"]["web"]["health"][0]["http"]["url"] == "http://127.0.0.1:8080/h"
    assert runs["readinessProbe"]["httpGet"] == {"path": "/h", "port": 8080, "scheme": "HTTP"}
    assert "TimeoutStartSec=30" in lines
    assert runs["startupProbe"]["failureThreshold"] * runs["startupProbe"]["periodSeconds"] == 30


def expanded(text: str) -> str:
    """What a kubelet makes of a word: `$$` is `$`, `$(NAME)` the variable, or itself where there is none."""
    return re.sub(r"\$(\$|\([^)]*\))", lambda found: "$" if found[1] == "$" else "EXPANDED", text)


@ROUNDS
@given(st.text(alphabet="$()Aa ", max_size=12))
def test_no_word_of_a_unit_is_expanded(text: str) -> None:
    assert expanded(literal(text)) == text


@ROUNDS
@given(st.integers(min_value=1, max_value=1 << 50))
def test_an_amount_is_written_exactly(count: int) -> None:
    number, suffix = re.fullmatch(r"([0-9]+)(Ki|Mi|Gi|)", quantity(count)).groups()  # type: ignore[union-attr]

    assert int(number) * {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}[suffix] == count
