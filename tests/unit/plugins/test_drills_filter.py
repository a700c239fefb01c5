"""Whose backups are drilled: all critical hosts and one of each other class, on another host, by a seed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.kos.fleet.plugins.filter.drills import drill_tables, drills


def host(rank: str | None, zone: str = "a") -> dict[str, Any]:
    sources = {} if rank is None else {"backup_sources": {"docs": {"class": rank, "method": "tree"}}}
    return {"backup_repositories": {"offsite": {}}, "group_names": ["nodes", f"zone_{zone}"], **sources}


FLEET = {
    **{f"c{number}": host("critical", "a" if number < 2 else "b") for number in range(3)},
    **{f"l{number}": host("low") for number in range(20)},
    "s": host("skip"),
    "plain": {"group_names": ["nodes"]},
}


def chosen(seed: Any = 1, fleet: dict[str, Any] | None = None, **more: Any) -> list[dict[str, str]]:
    hosts = FLEET if fleet is None else fleet
    return drills(list(hosts), hosts, seed, **more)


def test_every_critical_host_is_drilled_and_one_of_each_other_class() -> None:
    """M13."""
    found = [one["node"] for one in chosen()]
    assert found[:3] == ["c0", "c1", "c2"]
    assert [name[0] for name in found[3:]] == ["l"]


def test_a_seed_chooses_the_same_again_and_others_choose_others() -> None:
    assert chosen(7) == chosen(7)
    assert len({chosen(seed)[-1]["node"] for seed in range(20)}) > 5


def test_a_host_is_always_drilled_on_the_same_other_one_in_another_zone() -> None:
    """Reports are chained where they are made."""
    found = [{one["node"]: one["on"] for one in chosen(seed)} for seed in range(20)]
    for by_node in found:
        assert all(node != on for node, on in by_node.items())
        assert [by_node[name] for name in ("c0", "c1", "c2")] == [
            found[0][name] for name in ("c0", "c1", "c2")
        ]
        assert (by_node["c0"], by_node["c1"]) == ("c2", "c2")


def test_where_a_host_is_drilled_can_be_said() -> None:
    fleet = {"n1": {**host("low"), "backup_drill_host": "n3"}}
    assert chosen(fleet=fleet)[0]["on"] == "n3"


def test_a_host_that_says_nothing_of_sources_is_critical_as_its_role_makes_it() -> None:
    assert chosen(fleet={"n1": host(None), "n2": host("low")})[0]["class"] == "critical"


def test_only_hosts_of_the_play_are_drilled() -> None:
    assert [one["node"] for one in chosen(among=["l3"])] == ["l3"]


@pytest.mark.parametrize(
    ("fleet", "more", "words"),
    [
        ({"n1": host("low")}, {}, "name one in backup_drill_host"),
        ({"n1": {**host("low"), "backup_drill_host": "n1"}}, {}, "belongs on another host"),
        ({"n1": host("skip")}, {}, "no host here has backup_repositories and a source"),
        ({"n1": {}}, {}, "no host here has backup_repositories"),
        ({"n1": {**host("low"), "backup_sources": ["docs"]}}, {}, "backup_sources of n1 has to be a mapping"),
    ],
)
def test_where_nothing_can_be_chosen_the_message_says_why(
    fleet: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        chosen(fleet=fleet, **more)


OFFSITE = {"url": "rest:https://192.0.2.1/n1/", "ca": "/etc/ssl/own.pem", "append_only": True}


def tables(fleet: dict[str, Any]) -> dict[str, Any]:
    return drill_tables(list(fleet), fleet)


def one(**more: Any) -> dict[str, Any]:
    return {"backup_repositories": {"offsite": OFFSITE}, "backup_drill_host": "n2", **more}


def test_each_host_has_a_row_of_every_node_that_a_drill_may_ever_place_on_it() -> None:
    fleet = {
        name: {**host, "backup_repositories": {"offsite": OFFSITE}} if name != "plain" else host
        for name, host in FLEET.items()
    }
    found = {node: on for on, nodes in tables(fleet).items() for node in nodes}
    for seed in range(40):
        for drill in chosen(seed, fleet):
            assert found[drill["node"]] == drill["on"]
    assert set(found) == set(fleet) - {"s", "plain"}


def test_a_row_has_what_a_drill_needs_and_no_secret() -> None:
    """K14."""
    sources = {"docs": {"class": "low", "method": "tree", "path": "/srv/docs"}}
    repositories = {"offsite": {**OFFSITE, "environment": {"AWS_SECRET_ACCESS_KEY": "word"}}}
    variables = one(
        backup_repositories=repositories,
        backup_sources=sources,
        backup_settings={"drill": {"interval_s": 60}, "reserve_bytes": 0, "retention": {"minimum": 3}},
        backup_witness_url="https://witness.example/",
    )
    assert tables({"n1": variables}) == {
        "n2": {
            "n1": {
                "repositories": {"offsite": {"url": OFFSITE["url"], "ca": OFFSITE["ca"]}},
                "witness": {"url": "https://witness.example/"},
                "table": sources,
                "interval_s": 60,
                "reserve_bytes": 0,
            }
        }
    }


def test_a_witness_over_ssh_is_asked_by_the_controller() -> None:
    row = tables({"n1": one(backup_witness_host="n3", backup_witness_url="https://unused.example/")})["n2"][
        "n1"
    ]
    assert "witness" not in row


def test_a_single_host_that_names_no_other_is_drilled_nowhere() -> None:
    assert tables({"n1": one(backup_drill_host="")}) == {}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (one(backup_drill_host="n1"), "a drill of n1 belongs on another host"),
        (one(backup_repositories={"o": {}}), "backup_repositories.o of n1 has to be a mapping with url"),
        (one(backup_repositories={"o": {"url": "rest:http://a:word@h/"}}), "its url holds a password"),
    ],
)
def test_a_row_that_cannot_be_made_names_the_variable(variables: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words) as caught:
        tables({"n1": variables})
    assert "word@" not in str(caught.value)
