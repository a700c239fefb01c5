"""The stand-in plays what is known of the gem kairos-chain; the verifier finds what chain_verify misses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.stand_in.kairos_gem import NEW, OLD, KairosChain, build

from kosnode import ledger

OK = "Blockchain Integrity Verified: OK (Length: 5)"
CORRUPT = "Blockchain Integrity Check FAILED! (state: corrupt)"
UNREADABLE = "Blockchain Integrity Check FAILED! (state: unreadable)"
ABSENT = "Blockchain not created yet (state: absent). Nothing to verify."
Change = Callable[[list[dict[str, Any]]], object]


@pytest.fixture
def chain(tmp_path: Path) -> KairosChain:
    """A node with four blocks after the first."""
    made = KairosChain(tmp_path / "data")
    made.record(["a", {"b": 1}], ["ünï\u2028\x01/"], [], ["c", "d", "e"])
    return made


def blocks(chain: KairosChain) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(chain.ledger.read_text())
    return found


def test_what_it_writes_is_what_the_verifier_calls_whole(chain: KairosChain) -> None:
    assert chain.tool("chain_verify") == OK
    verdict = ledger.verify(chain.ledger)
    assert (verdict.state, verdict.length) == ("ok", 5)
    # Older versions of Ruby's JSON write an empty list over three lines.
    written = chain.ledger.read_text().replace("[\n\n    ]", "[]")
    assert written == json.dumps(blocks(chain), indent=2, ensure_ascii=False)


def set_(at: int, key: str, value: object) -> Change:
    return lambda found: found[at].__setitem__(key, value)


# The table of what chain_verify says and what is so (K07): name, change, its answer.
CHANGES: dict[str, tuple[Change, str]] = {
    "a byte of data": (set_(2, "data", ["x"]), CORRUPT),
    "the timestamp of a middle block": (set_(2, "timestamp", "2026-01-01T00:00:00.000000Z"), CORRUPT),
    "previous_hash": (set_(2, "previous_hash", "0" * 64), CORRUPT),
    "genesis": (set_(0, "data", ["x"]), CORRUPT),
    "a middle block removed": (lambda found: found.pop(2), CORRUPT),
    "a stored hash": (set_(2, "hash", "0" * 64), OK),
    "the timestamp of the last block": (set_(4, "timestamp", "2026-01-01T00:00:00.000000Z"), OK),
    "an extra key": (set_(2, "extra", 1), OK),
    "an empty list": (lambda found: found.clear(), "Blockchain Integrity Check FAILED! (state: empty)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_verifier_finds_what_chain_verify_says_and_what_it_does_not(
    chain: KairosChain, change: str
) -> None:
    do, answer = CHANGES[change]
    found = blocks(chain)
    do(found)
    chain.ledger.write_text(json.dumps(found, indent=2, ensure_ascii=False))
    assert chain.tool("chain_verify") == answer
    assert ledger.verify(chain.ledger).state == "damaged"


def test_a_duplicate_key_is_ok_to_the_one_and_damage_to_the_other(chain: KairosChain) -> None:
    text = chain.ledger.read_text()
    chain.ledger.write_text(text.replace('"index": 2,', '"index": 9,\n    "index": 2,'))
    assert chain.tool("chain_verify") == OK
    assert ledger.verify(chain.ledger).first_bad == 2


@pytest.mark.parametrize("content", ["", "half"])
def test_a_torn_ledger_is_unreadable_and_not_written_to(chain: KairosChain, content: str) -> None:
    whole = chain.ledger.read_text()
    chain.ledger.write_text(whole[: len(whole) // 2] if content else "")
    before = chain.ledger.read_bytes()
    assert chain.tool("chain_verify") == UNREADABLE
    assert "refusing" in chain.tool("chain_record", logs=["x"])
    assert (chain.ledger.read_bytes(), ledger.verify(chain.ledger).state) == (before, "unreadable")


def test_an_old_version_calls_a_torn_ledger_ok_and_writes_over_it(chain: KairosChain) -> None:
    whole = chain.ledger.read_text()
    chain.ledger.write_text(whole[: len(whole) // 2])
    old = KairosChain(chain.data, OLD)
    assert old.tool("chain_verify") == "Blockchain Integrity Verified: OK (Length: 1)"
    old.record(["x"])
    assert ledger.verify(chain.ledger).length == 2


def test_absence_is_nothing_to_verify_and_exit_0(chain: KairosChain) -> None:
    chain.ledger.unlink()
    assert chain.tool("chain_verify") == ABSENT
    assert ledger.verify(chain.ledger).state == "absent"


def test_a_wrong_directory_gets_a_node_of_its_own(tmp_path: Path) -> None:
    wrong = KairosChain(tmp_path / "wrong")
    assert wrong.tool("chain_verify") == ABSENT
    assert (wrong.data / ".kairos_meta.yml").is_file()


def test_a_look_changes_nothing_and_a_greeting_writes_11_blocks(chain: KairosChain) -> None:
    """K20: a verification sends no `initialize`."""
    before = chain.ledger.read_bytes()
    chain.tool("chain_verify")
    assert chain.ledger.read_bytes() == before
    chain.ask({"method": "initialize"})
    assert ledger.verify(chain.ledger).length == 16
    chain.ask({"method": "initialize"})
    assert ledger.verify(chain.ledger).length == 16


def test_appends_wait_for_the_lock(chain: KairosChain) -> None:
    with ledger.shared(chain.ledger), pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            ["ruby", "-e", "File.open(ARGV[0]).flock(File::LOCK_EX)", f"{chain.ledger}.lock"],
            timeout=1,
            check=True,
        )


def test_an_admin_is_added_at_each_run(chain: KairosChain, tmp_path: Path) -> None:
    for number in range(2):
        chain.run("--init-admin", "--quiet", "--token-output-file", str(tmp_path / f"token{number}"))
    assert len(json.loads((chain.data / "storage/tokens.json").read_text())) == 2
    token = tmp_path / "token0"
    assert (len(token.read_text().strip()), token.stat().st_mode & 0o777) == (67, 0o600)


def test_tokens_are_managed_in_the_working_directory(chain: KairosChain) -> None:
    chain.run("--init-admin")
    assert chain.tool("token_manage", command="list") == "No active tokens"


def test_sqlite_is_broken_for_the_ledger(chain: KairosChain) -> None:
    config = chain.data / "skills/config.yml"
    config.write_text(config.read_text().replace("backend: file", "backend: sqlite"))
    assert chain.tool("chain_verify") == UNREADABLE
    assert "does not declare its ledger path" in chain.tool("chain_record", logs=["x"])
    assert (chain.data.parent / "storage/kairos.db").is_file()


def test_an_upgrade_keeps_edits_and_ends_with_0_whatever_happens(tmp_path: Path) -> None:
    old = KairosChain(tmp_path / "data", OLD)
    old.record(["a"])
    config, layers = old.data / "skills/config.yml", old.data / "knowledge/layers/layers.md"
    config.write_text(config.read_text().replace("tutorial", "developer"))
    layers.write_text("mine\n")
    new = KairosChain(old.data, NEW)
    assert "User-modified: skills/config.yml, knowledge/layers/layers.md" in new.run("upgrade").stdout
    assert ledger.verify(old.ledger).length == 2
    assert "Restart the MCP server" in new.run("upgrade", "--apply").stdout
    assert ledger.verify(old.ledger).length == 14
    assert "developer" in config.read_text()
    assert (layers.read_text(), (old.data / "knowledge/layers.new/layers.md").is_file()) == ("mine\n", True)
    assert "No upgrade needed" in new.run("upgrade").stdout


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_gem_of_each_version_is_built_and_says_what_it_is(tmp_path: Path, version: str) -> None:
    gem = build(tmp_path, version)
    shown = subprocess.run(
        ["gem", "specification", str(gem)], check=True, capture_output=True, text=True
    ).stdout
    assert f"version: {version}" in shown
    assert "stand-in: 'true'" in shown
    said = KairosChain(tmp_path / "data", version).run("--version")
    assert said.stdout == f"KairosChain MCP Server v{version}\n"
    assert "stand-in" in said.stderr
