"""Configuration: one schema, one clear message, and the old kept when the new is wrong (S13)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from kosd_node import Node

from kosd.config import AT_START_ONLY, Config, load, reload
from kosd.documents import DocumentError


def test_an_absent_file_means_the_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path / "kosd.json", tmp_path / "good.json")

    assert loaded.problem is None
    assert (loaded.config.listen_host, loaded.config.listen_port) == ("127.0.0.1", 8000)
    assert loaded.config.current == Path("/var/lib/kos/current")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"listen": {"prt": 1}}', "listen.prt: unknown key; did you mean port?"),
        (
            '{"colour": "red"}',
            "colour: unknown key; known are events, flapping, listen, log, node, observe, paths",
        ),
        ('{"listen": {"port": 70000}}', "listen.port: must be smaller than or equal to 65535; it is 70000"),
        ('{"listen": {"port": "8000"}}', "listen.port: must be integer; it is a string"),
        ('{"observe": {"every_s": 0}}', "observe.every_s: must be bigger than or equal to 0.1; it is 0"),
        ('{"observe": {"every_s": -1}}', "observe.every_s: must be bigger than or equal to 0.1; it is -1"),
        ('{"observe": {"every_s": 60}}', "observe.stale_after_s: must be larger than observe.every_s"),
        ('{"log": {"level": "loud"}}', "log.level: must be one of ['debug', 'info', 'warning', 'error']"),
        ('{"paths": {"current": "here"}}', "paths.current: must match pattern ^/"),
        ('{"events": {"keep": true}}', "events.keep: must be integer; it is true"),
        ('{"node": null}', "node: must be object; it is null"),
        ("[]", "the document: must be object; it is a list"),
        ('{"log": ', "is not JSON: Expecting value"),
        ('{"log": {}, "log": {}}', "is not JSON: the key 'log' is there twice"),
        ("[" * 100_000, "is not JSON"),
        (" " * (2 << 20), "is larger than 1048576 bytes"),
    ],
)
def test_a_broken_file_yields_a_message_with_file_key_and_rule(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "kosd.json"
    path.write_text(text)

    with pytest.raises(DocumentError) as caught:
        load(path, tmp_path / "good.json")

    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_value_that_may_be_a_secret_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "kosd.json"
    path.write_text('{"listen": {"port": "hunter2"}}')

    with pytest.raises(DocumentError) as caught:
        load(path, tmp_path / "good.json")

    assert "hunter2" not in str(caught.value)


def test_name_and_zone_come_from_the_nodes_own_configuration_unless_they_are_given(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    path.write_text('{"format": 1, "node": "node-b2", "zone": "b"}')

    taken = Config.from_document({"paths": {"node": str(path)}})
    given = Config.from_document({"paths": {"node": str(path)}, "node": {"name": "other"}})
    alone = Config.from_document({"paths": {"node": str(tmp_path / "none.json")}})

    assert (taken.node, taken.zone) == ("node-b2", "b")
    assert (given.node, given.zone) == ("other", "b")
    assert (alone.node, alone.zone) == (socket.gethostname(), None)


def test_a_reload_of_a_wrong_file_keeps_what_is_in_force(node: Node) -> None:
    now = load(node.config_path, node.state / "good.json").config
    node.config_path.write_text('{"observe": {"every": 1}}')

    loaded = reload(node.config_path, node.state / "good.json", now)

    assert loaded.config is now
    assert "observe.every: unknown key; did you mean every_s?" in str(loaded.problem)


def test_a_reload_says_what_waits_for_the_next_start_and_keeps_it_out_of_force(node: Node) -> None:
    now = load(node.config_path, node.state / "good.json").config
    node.write_config({"listen": {"port": 8123}, "observe": {"every_s": 2}})

    loaded = reload(node.config_path, node.state / "good.json", now)

    assert loaded.waits_for_start == ("listen_port",)
    assert (loaded.config.listen_port, loaded.config.every_s) == (8000, 2)


def test_a_start_with_a_wrong_file_takes_the_last_good_one(node: Node) -> None:
    node.write_config({"observe": {"every_s": 2}})
    load(node.config_path, node.state / "good.json")
    node.config_path.write_text("{")

    loaded = load(node.config_path, node.state / "good.json")

    assert loaded.config.every_s == 2
    assert str(loaded.problem).startswith(f"{node.config_path}: is not JSON")


def test_a_state_directory_that_takes_no_writes_does_not_stop_a_valid_configuration(node: Node) -> None:
    assert load(node.config_path, node.base / "nowhere" / "good.json").problem is None


def test_every_key_has_a_description_and_a_default_that_its_own_rule_allows() -> None:
    schema: dict[str, Any] = json.loads(
        (Path(__file__).parents[3] / "runtime/kosd/config.schema.json").read_text()
    )
    document: dict[str, Any] = {}
    for group, rules in schema["properties"].items():
        for key, rule in rules["properties"].items():
            assert rule["description"].endswith("."), f"{group}.{key}"
            document.setdefault(group, {})[key] = rule["default"]

    assert Config.from_document(document) == Config.from_document({})
    assert set(AT_START_ONLY) < set(Config.__dataclass_fields__)
