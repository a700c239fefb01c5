"""Which files a mirror gets, in which order, and how its web server is set up."""

from __future__ import annotations

import re
from typing import Any

import pytest
from action_world import Node
from ansible.errors import AnsibleActionFail
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kos.fleet.plugins.action import mirror as module
from ansible_collections.kos.fleet.plugins.module_utils import _mirror

OPTIONS: dict[str, Any] = {
    **{"root": "/srv/kos-mirror", "port": 8080, "address": "", "server_name": "_"},
    **{"tls_certificate": None, "tls_key": None},
}
FILES = {
    "metadata/timestamp.json": {"size": 9, "sha256": "t2"},
    "metadata/2.snapshot.json": {"size": 9, "sha256": "s"},
    "metadata/1.root.json": {"size": 9, "sha256": "r"},
    "releases/R.json": {"size": 9},
    "patches/A-B.zst": {"size": 9},
}


def test_the_timestamp_comes_last_and_what_it_leads_to_before_it() -> None:
    send, remove = _mirror.plan(FILES, {})
    assert send[-1] == "metadata/timestamp.json"
    assert send.index("releases/R.json") < send.index("metadata/2.snapshot.json")
    assert remove == []


@given(st.permutations(sorted(FILES)))
def test_the_order_does_not_depend_on_how_the_files_were_found(order: list[str]) -> None:
    assert _mirror.plan({path: FILES[path] for path in order}, {})[0] == _mirror.plan(FILES, {})[0]


def test_only_what_differs_is_sent() -> None:
    there = {**FILES, "metadata/timestamp.json": {"size": 9, "sha256": "t1"}, "releases/R.json": {"size": 8}}
    assert _mirror.plan(FILES, there)[0] == ["releases/R.json", "metadata/timestamp.json"]
    assert _mirror.plan(FILES, FILES) == ([], [])


def test_metadata_of_another_repository_does_not_stay_because_it_has_the_same_name_and_size() -> None:
    there = {**FILES, "metadata/1.root.json": {"size": 9, "sha256": "of another"}}
    assert _mirror.plan(FILES, there)[0] == ["metadata/1.root.json"]


def test_what_is_not_public_any_more_goes_away() -> None:
    assert _mirror.plan(FILES, {**FILES, "releases/OLD.json": {"size": 1}})[1] == ["releases/OLD.json"]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_folder_that_holds_anything_else_is_neither_made_a_mirror_nor_removed(state: str) -> None:
    """A mistake in mirror_root must not cost anybody's files."""
    done: list[str] = []
    said = "uid=0\nnginx=yes\nconfig=yes\nroot=yes\nsize=9 metadata/timestamp.json\nsize=5 alice/thesis.tex\n"
    action = Node().action(module, {"state": state, "root": "/home", "source": "/nowhere"})
    action._low_level_execute_command = lambda *_, **__: {"rc": 0, "stdout": said, "stderr": ""}
    action._execute_module = lambda **asked: done.append(asked["module_name"]) or {}

    with pytest.raises(AnsibleActionFail, match=r"/home, which is no mirror: it holds 'alice/thesis\.tex"):
        action.run(None, {})
    assert done == []


def test_files_that_are_named_by_version_or_hash_may_be_cached_for_ever_and_no_others() -> None:
    kept = [path for path in FILES if _mirror.immutable(path)]
    assert sorted(set(FILES) - set(kept)) == ["metadata/timestamp.json"]


def test_nginx_lists_nothing_and_sends_files_by_the_kernel() -> None:
    text = _mirror.nginx_conf(OPTIONS)
    assert "autoindex off;" in text
    assert "sendfile on;" in text
    assert "ssl" not in text
    assert text.count("{") == text.count("}")


def test_tls_keys_reach_the_service_as_credentials_only() -> None:
    options = {**OPTIONS, "tls_certificate": "a", "tls_key": "b", "port": 443}
    assert "ssl_certificate_key /run/credentials/kos-mirror.service/tls.key;" in _mirror.nginx_conf(options)
    unit = _mirror.unit(options)
    assert "LoadCredential=tls.key:/etc/kos-mirror/tls.key" in unit
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in unit


def test_the_service_runs_without_root_and_without_capabilities() -> None:
    """S22."""
    unit = _mirror.unit(OPTIONS)
    assert re.search(r"^User=www-data$", unit, re.M)
    assert re.search(r"^AmbientCapabilities=$", unit, re.M)
    assert re.search(r"^CapabilityBoundingSet=$", unit, re.M)
