"""What role kairoschain makes of a host: a server behind TLS, a ledger that is watched, tokens that end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from testinfra.host import Host

from verify import kairos, lane, plays, record

KOSCTL = "/opt/kos/current/bin/kosctl"
LEDGER = f"{kairos.DATA}/storage/blockchain.json"
CONVERGE = lane.SCENARIOS / "kairoschain/converge.yml"


@pytest.fixture
def node(reach: lane.Reach) -> Host:
    return reach("node1")


def until(told: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait for something that is to come."""
    end = time.monotonic() + seconds
    while not told():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def converge() -> plays.Outcome:
    return plays.run(CONVERGE)


def test_the_second_check_finds_nothing_to_change(last_check: record.Run) -> None:
    assert last_check.changed == []


def test_a_converge_is_one_task_that_tells_version_and_head(converged: record.Run) -> None:
    (said,) = converged.of("kos.fleet.kairoschain", "node1")
    assert said.result["version"] == "3.75.0"
    assert said.result["ledger"]["length"] == 12


def test_tools_are_called_over_https_with_a_token_and_not_without(node: Host) -> None:
    """K03."""
    status, text = kairos.call(node, kairos.VERIFY)
    assert (status, text[:34]) == ("200", "Blockchain Integrity Verified: OK ")
    assert kairos.call(node, kairos.VERIFY, token="")[0] == "401"
    assert kairos.call(node, kairos.VERIFY, token="kc_" + "0" * 64)[0] == "401"


def test_what_is_recorded_is_in_a_ledger_that_both_verifiers_call_whole(node: Host) -> None:
    before = kairos.ledger(node)["length"]
    assert "Recorded block" in kairos.record(node, "ünï\u2028\x01")
    assert kairos.ledger(node)["length"] == before + 1
    assert kairos.call(node, kairos.VERIFY)[1] == f"Blockchain Integrity Verified: OK (Length: {before + 1})"


def test_nothing_of_the_application_is_for_other_accounts(node: Host) -> None:
    """K04."""
    assert node.check_output(f"find {kairos.DATA} ! -user kairos -o ! -type l -perm /077") == ""
    token = node.file("/etc/kairos/admin.token")
    assert (token.user, token.mode) == ("root", 0o600)
    assert node.file("/etc/kairos/proxy/tls.key").mode == 0o600
    assert node.check_output("find /opt/kairos ! -user root -o ! -type l -perm /022") == ""


def test_the_server_is_reached_through_the_proxy_alone(node: Host, reach: lane.Reach) -> None:
    """K26, K27."""
    assert node.socket("tcp://127.0.0.1:8080").is_listening
    assert not node.socket("tcp://0.0.0.0:8080").is_listening
    other = reach("mirror1")
    assert other.run("curl --silent --max-time 5 http://node1:8080/health").rc == 7
    assert other.run("curl --silent --insecure --fail https://node1/health").rc == 0
    assert other.run("curl --silent --insecure --tls-max 1.1 https://node1/health").rc == 35


def test_the_proxy_limits_what_comes_and_says_so(node: Host) -> None:
    """K27."""
    large = kairos.call(node, {"name": "chain_record", "arguments": {"logs": ["x" * 5000]}})
    assert large[0] == "413"
    headers = node.check_output(
        "curl --silent --insecure --dump-header - --output /dev/null https://node1/health"
    )
    assert "Strict-Transport-Security: max-age=31536000" in headers
    assert "X-Frame-Options: DENY" in headers
    assert "X-Content-Type-Options: nosniff" in headers
    many = "curl --silent --insecure --parallel --output /dev/null --write-out '%{http_code} '"
    assert "429" in node.check_output(f"{many} 'https://node1/health?[1-400]'")
    assert until(lambda: kairos.call(node, kairos.VERIFY)[0] == "200")


def test_no_process_of_it_has_root_or_a_capability(node: Host) -> None:
    """K28."""
    pid = node.check_output(f"systemctl show --property MainPID --value {kairos.SERVICE}")
    found = node.check_output(
        f"grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Umask)' /proc/{pid}/status"
    ).splitlines()
    uid = node.check_output("id -u kairos")
    assert {line.split()[0]: line.split()[1] for line in found} == {
        **{"Uid:": uid, "CapEff:": "0" * 16, "CapBnd:": "0" * 16, "NoNewPrivs:": "1", "Umask:": "0077"},
    }
    assert "LANG=C.UTF-8" in node.check_output(f"tr '\\0' '\\n' < /proc/{pid}/environ")


@pytest.mark.parametrize(("unit", "bound"), [(kairos.SERVICE, 2.0), ("kairos-proxy.service", 2.5)])
def test_its_exposure_is_small(node: Host, unit: str, bound: float) -> None:
    """K28."""
    said = node.check_output(f"systemd-analyze security --json=short --no-pager {unit} | tail -1")
    exposure = sum(float(one["exposure"] or 0) for one in json.loads(said))
    overall = node.check_output(f"systemd-analyze security --no-pager {unit} | tail -1").split()
    score = float(next(word for word in overall if word.replace(".", "").isdigit()))
    assert (score <= bound, exposure >= 0) == (True, True), overall


def test_the_token_tool_sees_the_tokens_of_the_server(node: Host) -> None:
    """K28: it looks in the working directory."""
    listed = kairos.call(node, {"name": "token_manage", "arguments": {"command": "list"}})[1]
    assert "admin (owner)" in listed


def test_a_token_that_was_revoked_stops_working_with_the_next_run(node: Host) -> None:
    """K25: the server knows it until it is started again."""
    manage = {"name": "token_manage", "arguments": {"command": "create", "user": "guest", "role": "guest"}}
    token = kairos.call(node, manage)[1].split()[-1]
    assert kairos.call(node, kairos.VERIFY, token=token)[0] == "401"
    assert converge().rc == 0
    assert kairos.call(node, kairos.VERIFY, token=token)[0] == "200"
    kairos.call(node, {"name": "token_manage", "arguments": {"command": "revoke", "user": "guest"}})
    assert kairos.call(node, kairos.VERIFY, token=token)[0] == "200"
    assert converge().rc == 0
    assert kairos.call(node, kairos.VERIFY, token=token)[0] == "401"


def test_an_admin_token_is_replaced_before_it_expires_and_made_once(node: Host) -> None:
    """K25."""
    old = node.check_output("cat /etc/kairos/admin.token")
    node.check_output("touch -d '61 days ago' /etc/kairos/admin.token")
    assert converge().rc == 0
    assert kairos.call(node, kairos.VERIFY, token=old)[0] == "401"
    assert kairos.call(node, kairos.VERIFY)[0] == "200"
    invocation = kairos.invocation(node)
    again = converge()
    assert (again.rc, again.said.changed) == (0, [])
    assert kairos.invocation(node) == invocation
    assert node.check_output(f'grep -c \'"role": "owner"\' {kairos.DATA}/storage/tokens.json') == "1"


def test_metrics_tell_the_ledger_and_its_damage(node: Host) -> None:
    """K09: /health says that all is well, whatever became of the ledger."""

    def metrics() -> dict[str, float]:
        node.run("systemctl start kairos-check.service")
        lines = node.check_output("grep -v '^#' /var/lib/kos-metrics/kairoschain.prom").splitlines()
        return {line.split()[0]: float(line.split()[1]) for line in lines}

    well = metrics()
    assert (well["kairoschain_ledger_ok"], well["kairoschain_healthy"]) == (1, 1)
    assert well["kairoschain_ledger_blocks"] == kairos.ledger(node)["length"]
    assert well["kairoschain_ledger_last_block_age_seconds"] > 0
    node.check_output(f"cp -p {LEDGER} /root/ledger && sed -i '0,/core_05/s//core_55/' {LEDGER}")
    try:
        ill = metrics()
        health = node.check_output("curl --silent --insecure https://node1/health")
    finally:
        node.check_output(f"cat /root/ledger > {LEDGER} && rm /root/ledger")
    assert (ill["kairoschain_ledger_ok"], ill["kairoschain_healthy"]) == (0, 0)
    assert json.loads(health)["status"] == "ok"
    assert metrics()["kairoschain_healthy"] == 1


def test_the_check_runs_by_itself(node: Host) -> None:
    assert node.service("kairos-check.timer").is_enabled
    assert node.service("kairos-check.timer").is_running


def test_a_look_leaves_the_ledger_as_it_is(node: Host) -> None:
    """K20."""
    before = node.check_output(f"sha256sum {LEDGER}")
    assert node.run(f"{KOSCTL} kairoschain check").rc == 0
    assert node.check_output(f"sha256sum {LEDGER}") == before


@pytest.mark.parametrize("damage", ["rm", "truncate --size=-5"])
def test_the_server_does_not_start_without_its_ledger_and_makes_no_other(node: Host, damage: str) -> None:
    """K20."""
    node.check_output(f"systemctl stop {kairos.SERVICE} && cp -p {LEDGER} /root/ledger && {damage} {LEDGER}")
    try:
        started = node.run(f"systemctl start {kairos.SERVICE}")
        now = node.run(f"sha256sum {LEDGER}").stdout
        play = converge()
    finally:
        node.check_output(f"cp -p /root/ledger {LEDGER} && rm /root/ledger")
        node.check_output(f"systemctl reset-failed {kairos.SERVICE}; systemctl start {kairos.SERVICE}")
    assert started.rc != 0
    assert (play.rc, "blockchain.json" in play.words) == (2, True)
    assert now == "" or node.check_output(f"sha256sum {LEDGER}") != now
    assert until(lambda: kairos.call(node, kairos.VERIFY)[0] == "200")


def test_a_wrong_directory_gets_no_node_of_its_own(node: Host) -> None:
    guard = f"runuser -u kairos -- {KOSCTL} kairoschain guard --data /tmp/wrong --code /opt/kairos --json"
    answered = node.run(guard)
    assert answered.rc == 4
    assert not node.file("/tmp/wrong").exists


def test_a_tail_that_is_gone_fails_the_next_run(node: Host) -> None:
    """K08: the anchor is on the controller."""
    kairos.record(node, "the last one")
    assert converge().rc == 0
    node.check_output(f"systemctl stop {kairos.SERVICE} && cp -p {LEDGER} /root/ledger")
    cut = f"import json;p='{LEDGER}';b=json.load(open(p));open(p,'w').write(json.dumps(b[:-1],indent=2))"
    node.check_output(f'python3 -c "{cut}"')
    try:
        assert kairos.ledger(node)["state"] == "ok"
        play = converge()
    finally:
        node.check_output(
            f"cp -p /root/ledger {LEDGER} && rm /root/ledger && systemctl start {kairos.SERVICE}"
        )
    assert (play.rc, "the ledger is cut" in play.words) == (2, True)
    assert converge().rc == 0


def test_log_rotation_loses_no_line(node: Host) -> None:
    """K29."""
    log = f"{kairos.DATA}/skills/action_log.jsonl"
    lines = f"zcat --force {log}* | wc -l"
    before = int(node.check_output(lines))
    kairos.record(node, "before")
    assert node.run("logrotate --force --state /run/logrotate.test /etc/logrotate.d/kairos-chain").rc == 0
    kairos.record(node, "after")
    assert int(node.check_output(lines)) == before + 2
    assert node.check_output(f"wc -l < {log}") == "1"
    assert node.file(log).mode == 0o600


def test_it_is_up_after_a_kill(node: Host) -> None:
    node.run(f"systemctl kill --signal=KILL {kairos.SERVICE}")
    assert until(lambda: kairos.call(node, kairos.VERIFY)[0] == "200")


def test_appends_are_held_off_while_the_ledger_is_copied(node: Host) -> None:
    """Backups hold the same lock."""
    hold = f"runuser -u kairos -- flock --shared {LEDGER}.lock sleep 3"
    node.check_output(f"systemd-run --quiet --unit=kairos-test-lock -- {hold}")
    time.sleep(0.5)
    began = time.monotonic()
    assert "Recorded block" in kairos.record(node, "held off")
    assert time.monotonic() - began > 1
