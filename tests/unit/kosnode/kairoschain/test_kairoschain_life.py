"""The guard of a start, the deep check, the removal, and the units (K09, K20, K27 to K29)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from unit.kosnode.kairoschain.kairos_world import KEY, PEM, World

from kosnode import ledger
from kosnode.errors import DamagedError, InputError, NotFoundError
from kosnode.kairoschain import guard, health, record, remove, units
from kosnode.kairoschain.places import Places
from kosnode.kairoschain.resources import Machine
from kosnode.kairoschain.settings import merge
from kosnode.kairoschain.spec import Spec, parse
from kosnode.kairoschain.tokens import _without
from kosnode.paths import NodePaths


def looked(world: World) -> health.Report:
    places = Places(world.root)
    _, data, wanted = record.read(places.record).require()
    machine = world.machine
    application = machine.application(world.root / "opt/kairos/current")
    return health.look(wanted, data, places.token, application, machine.systemd, machine.ask_health)


def start(world: World) -> ledger.Head:
    places = Places(world.root)
    return guard.guard(world.data, world.root / "opt/kairos", places.started, places.unit(units.SERVICE))


# The guard


def test_a_whole_ledger_may_be_started_with(world: World) -> None:
    world.apply()
    assert start(world) == ledger.head(world.ledger)


def test_no_start_makes_a_node_out_of_a_wrong_directory(world: World) -> None:
    world.data.mkdir(parents=True)
    with pytest.raises(NotFoundError, match="a start would make a new one"):
        start(world)


def test_no_start_without_a_ledger_or_with_a_damaged_one(world: World) -> None:
    world.apply()
    text = world.ledger.read_text()
    for content, error in (("[]", DamagedError), (text[:-5], InputError), (None, NotFoundError)):
        world.ledger.unlink(missing_ok=True)
        if content is not None:
            world.ledger.write_text(content)
        with pytest.raises(error):
            start(world)


# The deep check


def test_a_node_that_is_well_has_no_findings_and_metrics_that_say_so(world: World) -> None:
    """K09."""
    world.apply()
    report = looked(world)
    assert report.findings == ()
    path = world.root / "metrics/kairos.prom"
    health.write_metrics(path, report, record.read(Places(world.root).record).require()[2])
    values = metrics(path)
    assert (values["kairoschain_ledger_ok"], values["kairoschain_ledger_blocks"]) == (1, 12)
    assert values["kairoschain_up"] == values["kairoschain_healthy"] == 1
    assert values["kairoschain_ledger_last_block_age_seconds"] >= 0
    assert 89 * 86_400 < values["kairoschain_admin_token_expires_in_seconds"] <= 90 * 86_400
    assert 'kairoschain_info{version="3.75.0"} 1' in path.read_text()


def metrics(path: Path) -> dict[str, float]:
    lines = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_what_chain_verify_does_not_see_is_a_finding(world: World) -> None:
    world.apply()
    blocks = json.loads(world.ledger.read_text())
    blocks[5]["hash"] = "0" * 64
    world.ledger.write_text(json.dumps(blocks, indent=2))
    report = looked(world)
    assert report.chain_verify is not None
    assert (report.chain_verify.ok, report.verdict.first_bad) == (True, 5)
    assert any("block 5: hash" in finding for finding in report.findings)
    path = world.root / "metrics/kairos.prom"
    health.write_metrics(path, report, record.read(Places(world.root).record).require()[2])
    assert (metrics(path)["kairoschain_ledger_ok"], metrics(path)["kairoschain_healthy"]) == (0, 0)


def test_a_constant_health_does_not_hide_an_absent_ledger(world: World) -> None:
    world.apply()
    world.ledger.unlink()
    told = " ".join(looked(world).findings)
    assert "no such file" in told
    assert "Nothing to verify" in told


def test_a_look_leaves_the_ledger_as_it_is(world: World) -> None:
    """K20."""
    world.apply()
    before = world.tree()
    looked(world)
    assert world.tree() == before


def test_a_data_directory_that_is_gone_is_a_finding_and_not_made(world: World) -> None:
    world.apply()
    world.data.rename(world.root / "elsewhere")
    assert any("is no data directory" in finding for finding in looked(world).findings)
    assert not world.data.exists()


def test_a_token_that_has_expired_or_is_not_known_is_a_finding(world: World) -> None:
    world.apply()
    os.utime(world.token, (0, 0))
    assert any("no token that the server takes" in finding for finding in looked(world).findings)
    world.token.write_text("kc_" + "0" * 64)
    assert any("no token that the server takes" in finding for finding in looked(world).findings)


def test_a_server_that_does_not_run_is_a_finding(world: World) -> None:
    world.apply()
    world.machine.own.active.discard(units.SERVICE)
    assert "kairos-chain.service does not run" in looked(world).findings


# The removal


def test_a_removal_keeps_the_data_and_its_token_and_can_be_taken_back(world: World) -> None:
    world.apply(proxy={"port": 8443, "certificate": PEM, "key": KEY})
    head = ledger.head(world.ledger)
    token = world.token.read_text()
    planned = remove.remove(world.paths, purge=False, check=True, machine=world.machine)
    done = remove.remove(world.paths, purge=False, check=False, machine=world.machine)
    assert [change.action for change in planned] == [change.action for change in done]
    assert (ledger.head(world.ledger), world.token.read_text()) == (head, token)
    assert not (world.root / "opt/kairos").exists()
    assert not list((world.root / "etc/systemd/system").rglob("kairos-*"))
    assert world.machine.own.active == set()
    assert remove.remove(world.paths, purge=False, check=False, machine=world.machine) == ()
    world.apply()
    assert (ledger.head(world.ledger), world.token.read_text()) == (head, token)


def test_a_removal_has_systemd_forget_its_own_failures_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that the removal interrupted has failed, and systemd would go on saying so."""
    asked: list[list[str]] = []
    machine = Machine(NodePaths(tmp_path))
    monkeypatch.setattr(machine, "run", asked.append)
    machine.forget_failures()
    assert asked == [["systemctl", "reset-failed", "kairos-*"]]


def test_a_purge_leaves_nothing(world: World) -> None:
    before = {path for path in world.root.rglob("*") if path.is_file()}
    world.apply(proxy={"port": 8443, "certificate": PEM, "key": KEY})
    remove.remove(world.paths, purge=True, check=False, machine=world.machine)
    left = {path for path in world.root.rglob("*") if path.is_file()} - before
    assert {path.name for path in left} <= {
        "kairoschain.lock",
        "started.json",
        f"kairos-chain-{'3.75.0'}.gem",
    }
    assert world.machine.account("kairos") is None


def test_in_the_layout_of_one_directory_the_data_stays_in_it(tmp_path: Path) -> None:
    """K11."""
    world = World(tmp_path)
    value = {**world.spec(), "code": "/srv/kairos", "data": "/srv/kairos/data"}
    spec = parse(value, tmp_path)
    assert spec.data.parent == spec.code


# What is written


def spec_of(world: World, **more: Any) -> Spec:
    return parse(world.spec(**more), Path("/"))


def test_the_server_runs_without_root_in_its_data_directory_past_the_guard(world: World) -> None:
    """K28."""
    text = units.service(spec_of(world), Path("/var/lib/kairos/data"), Path("/opt/kairos"))
    for line in (
        "User=kairos",
        "UMask=0077",
        "WorkingDirectory=/var/lib/kairos/data",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
    ):
        assert re.search(rf"^{re.escape(line)}$", text, re.M), line
    assert "LANG=C.UTF-8" in text
    assert text.index("ExecStartPre=/opt/kos/current/bin/kosctl kairoschain guard") < text.index(
        "ExecStart=/"
    )
    assert "--http --host 127.0.0.1 --port 8080\n" in text


def test_the_proxy_has_limits_and_strict_transport_security(world: World) -> None:
    """K27."""
    spec = spec_of(world, proxy={"port": 443, "certificate": PEM, "key": KEY, "body_bytes": 4096})
    assert spec.proxy is not None
    text = units.nginx(spec, spec.proxy)
    for word in (
        "client_max_body_size 4096;",
        "limit_req_status 429;",
        "max-age=31536000",
        "X-Real-IP $remote_addr",
    ):
        assert word in text
    assert "proxy_pass http://127.0.0.1:8080;" in text
    assert "PRIVATE KEY" not in text + units.proxy_service(spec.proxy)
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in units.proxy_service(spec.proxy)


def test_an_old_log_is_moved_and_none_is_made_by_another(world: World) -> None:
    """K29."""
    text = units.logrotate(Path("/var/lib/kairos/data"))
    assert text.splitlines()[1] == "/var/lib/kairos/data/skills/action_log.jsonl {"
    assert "nocreate" in text
    assert "copytruncate" not in text


def test_settings_of_an_operator_replace_lists_and_join_mappings() -> None:
    assert merge({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}, "d": {"e": 1}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {"e": 1},
    }


@pytest.mark.parametrize(
    ("store", "left"),
    [
        ({"H": {"user": "a"}, "I": {"user": "b"}}, {"I": {"user": "b"}}),
        ({"tokens": [{"hash": "H"}, {"hash": "I"}]}, {"tokens": [{"hash": "I"}]}),
        ({"tokens": {"1": {"token_hash": "H"}}, "version": 1}, {"tokens": {}, "version": 1}),
        (["H", "I"], ["I"]),
    ],
)
def test_an_entry_goes_whatever_the_form_of_the_store(store: object, left: object) -> None:
    assert _without(store, "H") == left
