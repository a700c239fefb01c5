"""What a unit forbids, and what Kubernetes cannot, gets one message that names file, key and rule (A04)."""

from __future__ import annotations

from typing import Any

import pytest

from infra.kubernetes.samples import IMAGE, document, rendered
from kosnode.errors import InputError

HTTP = "http://localhost:8080/"


def health(*checks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return document(health=list(checks), **changes)


@pytest.mark.parametrize(
    ("unit", "key", "rule"),
    [
        (document(format="native", image=None, entry={"command": ["bin/web"]}), "image", "is missing"),
        (
            document(entry={"type": "oneshot"}),
            "entry.type",
            "oneshot is nothing that Kubernetes keeps running",
        ),
        (document(resources={}), "resources.max.memory", "is missing"),
        (document(resources={"max": {"memory": "1M"}}), "resources.max.cpu", "is missing"),
        (document(affinity={"every_node": True}, max_replicas=1), "affinity.every_node", "max_replicas is 1"),
        (
            document(network={"ingress": [{"port": 8080}, {"port": 8081}]}),
            "health",
            "of 2 TCP ports Kubernetes can ask one",
        ),
        (health({"file_age": {"path": "x", "max": "5m"}}), "health", "age of a file"),
        (health({"http": {"url": HTTP}}, {"command": ["/bin/x"]}), "health", "asks a pod one question"),
        (health({"http": {"url": "http://db.example:8080/"}}), "health", "asks the unit itself"),
        (health({"tcp": {"port": 8080, "host": "db.example"}}), "health", "asks the unit itself"),
        (health({"tcp": {"port": 8081}}), "health", "opens TCP port 8081 to nobody but localhost"),
        (health({"http": {"url": "http://localhost/"}}), "health", "TCP port 80 to nobody"),
        (
            health({"tcp": {"port": 8080}}, network={"ingress": [{"port": 8080, "from": ["localhost"]}]}),
            "health",
            "to nobody but localhost",
        ),
        (
            health({"tcp": {"port": 8080}}, network={"ingress": [{"port": 8080, "proto": "udp"}]}),
            "health",
            "to nobody but localhost",
        ),
        (health({"http": {"url": HTTP, "status": [401, 503]}}), "health", "statuses from 200 to 399"),
    ],
)
def test_what_kubernetes_cannot_is_refused_in_the_unit(unit: dict[str, Any], key: str, rule: str) -> None:
    with pytest.raises(InputError) as refused:
        rendered({name: value for name, value in unit.items() if value is not None})

    assert refused.value.key == key
    assert refused.value.message.startswith(f"units/web/unit.yml: {key}: ")
    assert rule in refused.value.message


@pytest.mark.parametrize(
    ("unit", "wish", "key", "rule"),
    [
        (document(max_replicas=1), {"replicas": 2}, "replicas", "2 is more than the unit allows, which is 1"),
        (document(max_replicas=3), {"replicas": 4}, "replicas", "4 is more than the unit allows, which is 3"),
        # What has state has one writer, unless it says otherwise.
        (document(state={"size": "1G"}), {"replicas": 2}, "replicas", "which is 1"),
        (document(affinity={"every_node": True}), {"replicas": 2}, "replicas", "one on every machine"),
        (
            document(),
            {"expose": {"host": "a.example", "port": 9000, "tls_secret": "t"}},
            "expose.port",
            "does not open TCP port 9000 to any",
        ),
        (
            document(network={"ingress": [{"port": 8080, "from": ["10.0.0.0/8"]}]}),
            {"expose": {"host": "a.example", "port": 8080, "tls_secret": "t"}},
            "expose.port",
            "does not open TCP port 8080 to any",
        ),
        (
            document(),
            {"resources": {"max": {"memory": "lots"}}},
            "resources.max.memory",
            "an amount of memory",
        ),
        (document(), {"config": {"share": 0.5}}, "config", "float is not allowed"),
    ],
)
def test_what_the_unit_forbids_is_refused_in_the_settings(
    unit: dict[str, Any], wish: dict[str, Any], key: str, rule: str
) -> None:
    with pytest.raises(InputError) as refused:
        rendered(unit, web=wish)

    assert f"kos-kubernetes:settings: units.web.{key}" in refused.value.message
    assert rule in refused.value.message


def test_two_units_behind_one_name_are_refused() -> None:
    expose = {"expose": {"host": "a.example", "port": 8080, "tls_secret": "t"}}

    with pytest.raises(InputError, match=r"units\.web\.expose\.host: a\.example is that of other already"):
        rendered(document(), document(id="other"), web=expose, other=expose)


def test_a_unit_that_has_the_name_of_anothers_canary_is_refused() -> None:
    twins = [document(), document(id="web-canary", image=IMAGE)]

    with pytest.raises(InputError, match="the canary of another unit has that name"):
        rendered(*twins, canary={"zone": "a"}, web={"replicas": 2}, **{"web-canary": {}})
