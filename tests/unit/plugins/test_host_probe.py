"""What a host has to have: one probe, and one message that names all that is missing."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.kos.fleet.plugins.plugin_utils import _host

FINE = {
    **{"uid": "0", "machine": "x86_64", "bits": "64", "python": "3.11", "zstandard": "0.22.0"},
    **{
        "init": "systemd",
        "systemd": "252",
        "free_kib": "900000",
        "current": "",
        "digest": "",
        "unpacked": "",
    },
    **{f"has_{name}": "yes" for name in _host.PROGRAMS},
}


def probe(**more: str) -> _host.Probe:
    return _host.Probe({key: value for key, value in {**FINE, **more}.items() if value != "none"})


def test_a_host_that_has_everything_lacks_nothing() -> None:
    assert probe().missing() == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"python": "3.9"}, "Python 3.10 or later as /usr/bin/python3 (it is 3.9)"),
        ({"python": "none"}, "Python 3.10 or later as /usr/bin/python3 (package python3)"),
        ({"zstandard": "none"}, "zstandard (package python3-zstandard)"),
        ({"init": "runit"}, "systemd as process 1 (it is runit)"),
        ({"systemd": "249"}, "systemd 252 or later (it is 249)"),
        ({"bits": "32"}, "a 64-bit userland for x86_64 or aarch64 (it is 32-bit on x86_64)"),
        ({"machine": "riscv64"}, "64-bit on riscv64"),
        ({"has_visudo": "none"}, "visudo (package sudo)"),
        ({"free_kib": "65535"}, "64 MiB of free disk in /var/lib and /opt (1024 bytes are missing)"),
    ],
)
def test_what_a_host_lacks_is_named(facts: dict[str, str], words: str) -> None:
    (told,) = probe(**facts).missing()
    assert words in told


def test_all_that_is_missing_is_one_message_with_one_command() -> None:
    told = _host.lacks("n1", probe(zstandard="none", has_flock="none", has_sudo="none").missing())
    assert told.startswith("n1 lacks ")
    assert told.endswith("Nothing was changed. On Debian: apt install python3-zstandard sudo util-linux.")


def test_a_64_bit_kernel_under_a_32_bit_userland_is_not_taken_for_64_bit() -> None:
    assert probe(machine="aarch64").arch == "aarch64"
    assert probe(machine="aarch64", bits="32").arch is None


def test_an_engine_counts_as_installed_only_whole_and_with_its_digest() -> None:
    assert probe(unpacked="yes", digest="d").has_engine("d")
    assert not probe(unpacked="yes", digest="e").has_engine("d")
    assert not probe(unpacked="", digest="d").has_engine("d")


def test_the_probe_runs_in_a_plain_shell_and_can_be_read() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", _host.script("1.0.0-x")], capture_output=True, text=True, check=True
    )
    found = _host.read(done.stdout)
    assert found.facts["uid"].isdigit()
    assert found.facts["machine"]
    assert done.stderr == ""
    assert not found.has_engine("")
