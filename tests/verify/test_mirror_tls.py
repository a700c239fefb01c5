"""A mirror with TLS: the same files over HTTPS, on a low port, and the key to nobody's eyes."""

from __future__ import annotations

from testinfra.host import Host

from verify import lane

FETCH = "curl --silent --show-error --output /dev/null --write-out '%{http_code}'"


def test_files_come_over_https_by_the_certificate(reach: lane.Reach) -> None:
    mirror: Host = reach("mirror1")
    good = f"{FETCH} --cacert /etc/kos-mirror/tls.crt https://mirror1/metadata/timestamp.json"
    assert mirror.check_output(good) == "200"
    assert (
        mirror.run(f"{FETCH} https://mirror1/metadata/timestamp.json").rc == 60
    )  # not a certificate it knows
    assert mirror.run(f"{FETCH} --cacert /etc/kos-mirror/tls.crt --tls-max 1.1 https://mirror1/").rc == 35


def test_the_plain_port_is_closed(reach: lane.Reach) -> None:
    assert not reach("mirror1").socket("tcp://0.0.0.0:8080").is_listening


def test_only_root_reads_the_key(reach: lane.Reach) -> None:
    key = reach("mirror1").file("/etc/kos-mirror/tls.key")
    assert (key.user, key.mode) == ("root", 0o600)
    assert reach("mirror1").run("runuser -u www-data -- cat /etc/kos-mirror/tls.key").rc != 0


def test_a_low_port_takes_one_capability_and_no_root(reach: lane.Reach) -> None:
    pid = reach("mirror1").check_output("systemctl show --property MainPID --value kos-mirror.service")
    found = reach("mirror1").check_output(f"grep -E '^(Uid|CapBnd)' /proc/{pid}/status").splitlines()
    assert [line.split()[1] for line in found] == ["33", f"{1 << 10:016x}"]
