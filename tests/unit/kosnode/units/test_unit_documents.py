"""What a unit may say of itself, in three notations, and the one message that a broken document gets."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit_samples import FULL, ROUNDS, entry, full, small

from kosnode import authored, schema, unit
from kosnode.errors import InputError

RUNTIME = Path(__file__).parents[4] / "runtime"


def refusal(document: dict[str, Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        unit.validate(document, "unit.yml")
    return caught.value


def test_every_supported_key_arrives_in_its_unit() -> None:
    found = unit.validate(FULL, "unit.yml")

    assert found.entry == unit.Entry(
        command=("bin/meter", "--label", "a b"),
        type="notify",
        watchdog_s=10,
        timeout_s=120,
        user="kos",
        env=(("EMPTY", ""), ("GREETING", "hello world")),
        reload=True,
    )
    assert found.resources == unit.Resources(128 << 20, 64, 50, 16 << 20)
    assert found.health == (
        unit.HttpCheck("http://127.0.0.1:9100/h", (200, 204), (("/status", ("ok",)),), 2),
        unit.TcpCheck(9100, "localhost"),
        unit.CommandCheck(("bin/probe", "--deep")),
        unit.FileAgeCheck("last.json", 300),
    )
    assert found.ingress == (unit.Ingress(9100, "tcp", ("localhost", "10.0.0.0/8")),)
    assert found.egress == (unit.Egress("192.0.2.7/32", 443),)
    assert (found.service, found.timer) == ("kos-meter.service", None)


@pytest.mark.parametrize("name", ["kosd", "sysinfo", "heartbeat"])
def test_the_units_of_the_reference_runtime_obey_the_schema(name: str) -> None:
    assert unit.load(RUNTIME / f"release/units/{name}/unit.yml").id == name


# S13: three notations, one schema, and a message that names the key and the reason.
BROKEN = [
    ("missing.yml", "id: a\nversion: 1.0.0\nentry: {command: [bin/a]}\n", "tier", "is missing"),
    (
        "misspelt.yml",
        "id: a\nversion: 1.0.0\ntier: 1\nentry: {comand: [x]}\n",
        "entry.comand",
        "did you mean command?",
    ),
    (
        "number.yml",
        "id: a\nversion: 1.0\ntier: 1\nentry: {command: [x]}\n",
        "version",
        "a version such as 1.0.0",
    ),
    ("twice.yml", "id: a\nid: b\n", None, "line 2: key 'id' stands twice"),
    ("syntax.yml", "id: a\nentry: [bin/a\n", None, "line 3"),
    ("alias.yml", "id: &x a\nversion: *x\n", None, "anchors and aliases are not allowed"),
    (
        "tier.toml",
        'id="a"\nversion="1.0.0"\ntier=7\nentry={command=["x"]}\n',
        "tier",
        "must be 3 or less; it is 7",
    ),
    ("syntax.toml", 'id = "a"\ntier =\n', None, "line 2"),
    ("float.json", '{"id": "a", "tier": 1.5}', None, "1.5 is not an integer"),
    (
        "time.json",
        json.dumps(small(health=[{"tcp": {"port": 1}, "timeout": "-5s"}])),
        "health[0].timeout",
        "above zero",
    ),
    ("type.json", json.dumps(small(files="lib")), "files", "must be a list; it is 'lib'"),
    ("list.json", "[]", None, "must be a mapping"),
]


@pytest.mark.parametrize(("name", "text", "key", "reason"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_broken_file_gets_one_message_with_key_and_reason(
    tmp_path: Path, name: str, text: str, key: str | None, reason: str
) -> None:
    if name.endswith(".toml") and sys.version_info < (3, 11):
        reason = "needs Python 3.11"
        key = None
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(InputError) as caught:
        unit.load(path)

    assert caught.value.key == key
    assert reason in caught.value.message
    assert name in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("suffix", ["yml", "toml", "json"])
def test_the_same_unit_in_three_notations_is_the_same_unit(tmp_path: Path, suffix: str) -> None:
    if suffix == "toml" and sys.version_info < (3, 11):
        with pytest.raises(InputError, match=r"needs Python 3\.11"):
            authored.load_toml(b"a = 1")
        return
    texts = {
        "yml": "id: a\nversion: 1.0.0\ntier: 1\nentry:\n  command: [python3, -V]\n  env: {N: '1'}\n",
        "toml": 'id="a"\nversion="1.0.0"\ntier=1\n[entry]\ncommand=["python3","-V"]\nenv={N="1"}\n',
        "json": '{"id":"a","version":"1.0.0","tier":1,"entry":{"command":["python3","-V"],"env":{"N":"1"}}}',
    }
    path = tmp_path / f"unit.{suffix}"
    path.write_text(texts[suffix])

    assert unit.load(path) == unit.Unit(
        "a", "1.0.0", 1, unit.Entry(command=("python3", "-V"), env=(("N", "1"),))
    )


def test_a_node_needs_no_reader_of_yaml() -> None:
    modules = ["unit", "render", "health", "systemd", "config"]
    code = f"import sys; sys.modules['yaml'] = None; from kosnode import {', '.join(modules)}"

    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(RUNTIME)})


@pytest.mark.parametrize("text", ["yes", "1.0", "2026-01-01", "0x10", "012", "1_000", "=", ".inf"])
def test_yaml_never_turns_a_word_into_something_else(text: str) -> None:
    assert authored.load_yaml(f"a: {text}\n".encode()) == {"a": text}


@ROUNDS
@given(st.binary(max_size=60))
def test_no_bytes_make_a_reader_fail_with_anything_but_a_message(data: bytes) -> None:
    for reader in (authored.load_yaml, authored.load_json, authored.load_toml):
        with contextlib.suppress(InputError):
            assert isinstance(reader(data), dict)


def test_yaml_that_nests_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="deeper than"):
        authored.load_yaml(b"a: " + b"[" * 20_000)


@pytest.mark.parametrize("kind", ["oci", "wasm", "lxc", "appimage"])
def test_a_format_of_a_later_version_is_refused_by_name(kind: str) -> None:
    assert f"format {kind} is not supported by this version; native is" in refusal(small(format=kind)).message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hooks", {"pre_init": ["bin/x"]}),
        ("secrets", ["token"]),
        ("fallback", "other"),
        ("affinity", {"spread": "zone"}),
        ("locality", "zone"),
        ("permissions", ["spawn"]),
    ],
)
def test_what_is_not_done_yet_is_refused_and_not_ignored(key: str, value: Any) -> None:
    error = refusal(small(**{key: value}))

    assert error.key == key
    assert "not supported yet" in error.message


RULES = [
    (small(id="boot"), "id"),
    (small(id="migrate-kosd"), "id"),
    (small(id="A"), "id"),
    (small(id="a\n"), "id"),
    (small(version="1.0.0+build"), "version"),
    (small(version="01.0.0"), "version"),
    (small(files=["../x"]), "files[0]"),
    (small(files=["a//b"]), "files[0]"),
    (small(files=["/etc/passwd"]), "files[0]"),
    (entry(command=[]), "entry.command"),
    (entry(command=["../bin/a"]), "entry.command[0]"),
    (entry(command=["a", "b\nc"]), "entry.command[1]"),
    (entry(every="60s"), "entry.every"),
    (entry(type="oneshot", every="0s"), "entry.every"),
    (entry(watchdog="10s"), "entry.watchdog"),
    (entry(type="oneshot", reload="HUP"), "entry.reload"),
    (entry(reload="KILL"), "entry.reload"),
    (entry(user="root"), "entry.user"),
    (entry(user="kosops"), "entry.user"),
    (entry(user="a b"), "entry.user"),
    (entry(env={"KOS_UNIT": "x"}), "entry.env.KOS_UNIT"),
    (entry(env={"NOTIFY_SOCKET": "x"}), "entry.env.NOTIFY_SOCKET"),
    (entry(env={"A": "b\0"}), "entry.env.A"),
    (entry(env={"A=B": "c"}), "entry.env"),
    (small(resources={"min": {"memory": "2M"}, "max": {"memory": "1M"}}), "resources.min.memory"),
    (small(resources={"min": {"cpu": "5%"}}), "resources.min.cpu"),
    (small(resources={"max": {"memory": "-1M"}}), "resources.max.memory"),
    (small(resources={"max": {"tasks": True}}), "resources.max.tasks"),
    (small(network={"ingress": [{"port": 80}]}), "network.ingress[0].port"),
    (small(network={"ingress": [{"port": 8000}, {"port": 8000}]}), "network.ingress[1].port"),
    (small(network={"egress": [{"host": "10.0.0.1/8"}]}), "network.egress[0].host"),
    (small(network={"egress": [{"host": "example.org"}]}), "network.egress[0].host"),
    (small(health=[{}]), "health[0]"),
    (small(health=[{"timeout": "5s"}]), "health[0]"),
    (small(health=[{"tcp": {"port": 1}, "command": ["x"]}]), "health[0]"),
    (small(health=[{"http": {"url": "file:///etc/passwd"}}]), "health[0].http.url"),
    (small(health=[{"http": {"url": "http://u:p@h/"}}]), "health[0].http.url"),
    (small(health=[{"http": {"url": "http://h:99999/"}}]), "health[0].http.url"),
    (small(health=[{"http": {"url": "http://h/", "status": 0}}]), "health[0].http.status"),
    (small(health=[{"http": {"url": "http://h/", "json": {"status": "ok"}}}]), "health[0].http.json"),
    (small(health=[{"http": {"url": "http://h/", "json": {"/a": {"b": 1}}}}]), "health[0].http.json./a"),
    (small(health=[{"file_age": {"path": "x", "max": "-1s"}}]), "health[0].file_age.max"),
    (small(health=[{"file_age": {"path": "x", "max": "0s"}}]), "health[0].file_age.max"),
    (small(health=[{"file_age": {"path": "../x", "max": "1s"}}]), "health[0].file_age.path"),
    (small(health=[{"unit": {"active": False}}]), "health[0].unit.active"),
]


@pytest.mark.parametrize(("document", "key"), RULES, ids=[f"{n}-{row[1]}" for n, row in enumerate(RULES)])
def test_a_rule_that_is_broken_is_named_with_its_key(document: dict[str, Any], key: str) -> None:
    error = refusal(document)

    assert error.key == key
    assert error.message.startswith(f"unit.yml: {key}: ")


def test_a_value_of_the_environment_is_never_repeated_in_a_message() -> None:
    assert "hush" not in refusal(entry(env={"A": "hush\n"})).message


def test_checks_survive_the_way_through_units_json() -> None:
    checks = unit.validate(FULL, "unit.yml").health

    assert unit.validate_checks([check.as_json() for check in checks], "units.json") == checks


def test_a_negative_time_in_the_checks_of_a_release_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        unit.validate_checks([{"tcp": {"port": 80}, "timeout": "-1s"}], "release.json")

    assert caught.value.key == "health[0].timeout"
    assert "above zero" in caught.value.message


def test_a_node_may_change_limits_within_the_unit_s_own_rules() -> None:
    found = unit.validate(full(), "unit.yml")

    raised = found.with_resources({"max": {"memory": "256M"}}, "node.json")

    assert raised.resources == unit.Resources(256 << 20, 64, 50, 16 << 20)
    with pytest.raises(InputError, match=r"units\.meter\.resources\.min\.memory"):
        found.with_resources({"max": {"memory": "8M"}}, "node.json")


@pytest.mark.parametrize("name", ["unit", "node", "conf"])
def test_every_key_of_a_published_schema_says_what_it_is(name: str) -> None:
    document = schema.load(name)

    def walk(rules: dict[str, Any], path: str) -> list[str]:
        silent = []
        for key, rule in rules.get("properties", {}).items():
            named = (
                rule
                if "$ref" not in rule
                else {**document["definitions"][rule["$ref"].split("/")[-1]], **rule}
            )
            if not ({"title", "description"} & set(named)):
                silent.append(f"{path}{key}")
            silent += walk(rule, f"{path}{key}.")
        if "properties" in rules and rules.get("additionalProperties") is not False:
            silent.append(f"{path} is open")
        return silent

    assert walk(document, "") == []
