"""What systemd is given for a unit: hardened, of the unit's words alone, and the same for the same unit."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit_samples import FULL, RELEASE, ROUNDS, entry, full, small

from kosnode import files, render, unit
from kosnode.errors import InputError
from kosnode.paths import NodePaths

SLOT = Path("/var/lib/kos/releases") / RELEASE
TREE = f"{SLOT}/tree"


def uid(_name: str) -> int:
    return 990


def nothing_hashed(_paths: Any) -> str:
    return "00"


def service_of(document: dict[str, Any], slot: Path = SLOT) -> str:
    found = unit.validate(document, "unit.yml")
    return render.render([found], slot, nothing_hashed, user_id=uid).files[f"units/{found.service}"].decode()


def directives(text: str) -> list[tuple[str, str]]:
    """Read a unit file as systemd does: lines continued by a backslash, comments, sections, KEY=VALUE."""
    assert text.endswith("\n")
    assert "\0" not in text
    assert "\r" not in text
    joined: list[str] = []
    continued = False
    for line in text.split("\n"):
        body, ends = (line[:-1], False) if line.endswith("\\") else (line, True)
        if continued:
            joined[-1] += " " + body
        else:
            joined.append(body)
        continued = not ends
    found = []
    for line in (line.strip() for line in joined):
        if line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found.append((key, value))
    return found


def words(value: str) -> list[str]:
    """Split a value as systemd does for quoted words, and take out what protects specifiers and variables."""
    found: list[str] = []
    rest = iter(value)
    for letter in rest:
        if letter == " ":
            continue
        word = letter if letter != '"' else ""
        for letter in rest:
            if letter == "\\":
                word += next(rest)
            elif letter == '"' or (letter == " " and not value.startswith('"')):
                break
            else:
                word += letter
        found.append(word)
    return found


def value_of(text: str, key: str) -> str:
    [value] = [value for name, value in directives(text) if name == key]
    return value


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, str):
        yield at
    for key, item in items:
        yield from leaves(item, (*at, key))


def with_leaf(document: dict[str, Any], at: tuple[Any, ...], value: str) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    target: Any = changed
    for key in at[:-1]:
        target = target[key]
    target[at[-1]] = value
    return changed


HOSTILE = st.sampled_from(
    [
        "\nExecStartPre=/bin/x",
        "\\\n",
        "\r[Service]",
        "\0",
        "\x0b",
        "\x85x",
        "\u2028x",
        '" "',
        "\\",
        "%n",
        "$HOME",
        ";",
        "'",
    ]
)


@ROUNDS
@given(
    at=st.sampled_from(list(leaves(FULL))), add=st.one_of(HOSTILE, st.text(max_size=12)), end=st.booleans()
)
def test_no_value_of_a_unit_can_add_a_directive(at: tuple[Any, ...], add: str, end: bool) -> None:
    before: Any = FULL
    for key in at:
        before = before[key]
    hostile = with_leaf(FULL, at, before + add if end else add + before)
    try:
        text = service_of(hostile)
    except InputError:
        return
    lines, plain = directives(text), directives(service_of(FULL))

    assert [key for key, _ in lines] == [key for key, _ in plain]
    assert text.count("\n") == service_of(FULL).count("\n")


SPECIAL = st.sampled_from("%$\\\"'; \u2028{}@-+!:|")
LETTERS = st.one_of(SPECIAL, st.characters(exclude_categories=["Cc", "Cs"]))


@ROUNDS
@given(st.lists(st.text(LETTERS, min_size=1, max_size=20), max_size=4))
def test_arguments_and_environment_reach_the_program_letter_by_letter(said: list[str]) -> None:
    document = full(
        entry={"command": ["bin/a", *said], "env": {f"V{n}": text for n, text in enumerate(said)}}
    )
    text = service_of(document)

    started = [word.replace("$$", "$").replace("%%", "%") for word in words(value_of(text, "ExecStart"))]
    given_env = [
        words(value)[0].replace("%%", "%") for key, value in directives(text) if key == "Environment"
    ]

    assert started == [f"{TREE}/bin/a", *said]
    assert given_env[: len(said)] == [f"V{n}={value}" for n, value in enumerate(said)]
    for value in (value_of(text, "ExecStart"), *(v for k, v in directives(text) if k == "Environment")):
        assert value.replace("%%", "").count("%") == 0
    assert value_of(text, "ExecStart").replace("$$", "").count("$") == 0


def test_a_control_character_is_refused_by_the_renderer_as_well() -> None:
    found = unit.validate(small(), "unit.yml")
    smuggled = replace(found, entry=unit.Entry(command=("bin/a", "x\nUser=root")))

    with pytest.raises(InputError, match="control character"):
        render.render([smuggled], SLOT, nothing_hashed, user_id=uid)


def test_a_program_of_the_release_runs_from_the_slot_by_its_absolute_path() -> None:
    assert words(value_of(service_of(entry(command=["bin/a", "x"])), "ExecStart"))[0] == f"{TREE}/bin/a"
    assert words(value_of(service_of(entry(command=["python3", "-V"])), "ExecStart"))[0] == "/usr/bin/python3"
    assert words(value_of(service_of(entry(command=["/bin/sh"])), "ExecStart"))[0] == "/bin/sh"
    assert value_of(service_of(small()), "WorkingDirectory") == TREE


def test_a_service_has_no_right_it_did_not_ask_for() -> None:
    text = service_of(small())

    for key, value in {
        "User": "kos",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "AmbientCapabilities": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "MemoryDenyWriteExecute": "yes",
        "RestrictAddressFamilies": "AF_UNIX",
        "IPAddressDeny": "any",
        "SocketBindDeny": "any",
        "UMask": "0077",
        "StateDirectory": "kos/state/a",
    }.items():
        assert value_of(text, key) == value
    assert [key for key, _ in directives(text) if key in ("IPAddressAllow", "SocketBindAllow")] == []


def test_the_network_that_is_declared_is_all_there_is() -> None:
    text = service_of(FULL)

    assert value_of(text, "RestrictAddressFamilies") == "AF_UNIX AF_INET AF_INET6"
    assert value_of(text, "IPAddressDeny") == "any"
    assert value_of(text, "IPAddressAllow") == "10.0.0.0/8 192.0.2.7/32 localhost"
    assert value_of(text, "SocketBindAllow") == "tcp:9100"


def test_the_health_checks_of_the_node_reach_a_port_that_others_may_not() -> None:
    text = service_of(small(network={"ingress": [{"port": 9100, "from": ["10.0.0.0/8"]}]}))

    assert value_of(text, "IPAddressAllow") == "10.0.0.0/8 localhost"


def test_limits_are_those_of_the_unit_or_of_the_node_where_it_says_so() -> None:
    found = unit.validate(FULL, "unit.yml")
    overrides = {"meter": {"resources": {"max": {"memory": "256M"}}}}

    text = (
        render.render([found], SLOT, nothing_hashed, overrides, user_id=uid)
        .files[f"units/{found.service}"]
        .decode()
    )

    limits = [value_of(text, key) for key in ("MemoryMax", "MemoryMin", "TasksMax", "CPUQuota")]
    assert limits == [str(256 << 20), str(16 << 20), "64", "50%"]


def test_a_periodic_unit_gets_a_timer_that_starts_it_at_once() -> None:
    found = unit.validate(entry(type="oneshot", every="5m"), "unit.yml")
    rendered = render.render([found], SLOT, nothing_hashed, user_id=uid)

    timer = directives(rendered.files["units/kos-a.timer"].decode())
    assert ("OnActiveSec", "0") in timer
    assert ("OnUnitActiveSec", "300") in timer
    assert "Restart" not in dict(directives(rendered.files["units/kos-a.service"].decode()))
    assert render.starts(rendered.units_json["units"]["a"]) == "kos-a.timer"


def test_a_lasting_unit_comes_back_by_itself_however_often_it_fails() -> None:
    text = service_of(small())

    assert value_of(text, "Restart") == "always"
    assert value_of(text, "StartLimitIntervalSec") == "0"


@pytest.mark.parametrize("kind", ["simple", "notify", "oneshot"])
def test_a_unit_that_blames_its_configuration_is_not_started_again_for_ever(kind: str) -> None:
    """Exit status 78 (EX_CONFIG)."""
    assert value_of(service_of(entry(type=kind)), "RestartPreventExitStatus") == "78"


def test_an_account_that_does_not_exist_is_named_with_its_unit() -> None:
    found = unit.validate(entry(user="no-such-account"), "unit.yml")

    with pytest.raises(InputError) as caught:
        render.render([found], SLOT, nothing_hashed)

    assert caught.value.message == "unit a: entry.user: this node has no account no-such-account"


def test_an_account_that_is_root_by_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="is root"):
        render.render(
            [unit.validate(entry(user="toor"), "unit.yml")], SLOT, nothing_hashed, user_id=lambda _: 0
        )


def test_a_name_that_the_node_uses_already_is_refused() -> None:
    found = unit.validate(small(), "unit.yml")

    with pytest.raises(InputError, match=r"unit a: the node has one of that name in units\.d"):
        render.render([found], SLOT, nothing_hashed, taken=["a"], user_id=uid)
    with pytest.raises(InputError, match="unit a: the release has two of them"):
        render.render([found, found], SLOT, nothing_hashed, user_id=uid)


# What restarts (docs/architecture.md, State machine).

MANIFEST: list[dict[str, Any]] = [
    {"path": "bin/a", "type": "file", "mode": "0555", "size": 1, "sha3": "aa"},
    {"path": "lib/x.py", "type": "file", "mode": "0444", "size": 1, "sha3": "bb"},
    {"path": "other", "type": "file", "mode": "0444", "size": 1, "sha3": "cc"},
]


def digest(document: dict[str, Any], manifest: list[dict[str, Any]] = MANIFEST, slot: Path = SLOT) -> str:
    found = unit.validate(document, "unit.yml")
    rendered = render.render([found], slot, render.files_hash(manifest), user_id=uid)
    return str(rendered.units_json["units"][found.id]["digest"])


def changed(path: str) -> list[dict[str, Any]]:
    return [{**item, "sha3": "ff"} if item["path"] == path else item for item in MANIFEST]


def test_a_unit_is_restarted_only_for_its_own_files_its_program_and_its_service() -> None:
    declared = small(files=["lib"])
    before = digest(declared)

    assert digest(declared, slot=SLOT.with_name("cd" * 32)) == before
    assert digest(declared, changed("other")) == before
    assert digest(declared, changed("lib/x.py")) != before
    assert digest(declared, changed("bin/a")) != before
    assert digest({**declared, "version": "1.0.1"}) != before
    assert digest({**declared, "resources": {"max": {"tasks": 5}}}) != before


def test_a_unit_that_declares_no_files_depends_on_all_of_them() -> None:
    assert digest(small(), changed("other")) != digest(small())


@pytest.mark.parametrize("document", [small(files=["li"]), entry(command=["bin/b"])])
def test_a_file_that_the_release_does_not_have_is_named(document: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"unit a: files: (li|bin/b) is not among the files"):
        digest(document)


def test_rendering_is_reproducible_and_listed_with_its_hashes() -> None:
    units = [unit.validate(FULL, "u"), unit.validate(small(), "u")]
    first = render.render(units, SLOT, nothing_hashed, user_id=uid)
    second = render.render(reversed(units), SLOT, nothing_hashed, user_id=uid)

    assert (first.files, files.canonical(first.units_json)) == (
        second.files,
        files.canonical(second.units_json),
    )
    assert first.units_json["release"] == RELEASE
    assert sorted(first.units_json["files"]) == ["kos-a.service", "kos-meter.service"]


def test_checks_are_listed_with_what_they_need_to_run_alone() -> None:
    entry_of = render.render([unit.validate(FULL, "u")], SLOT, nothing_hashed, user_id=uid).units_json[
        "units"
    ]["meter"]

    assert {"command": [f"{TREE}/bin/probe", "--deep"], "timeout": "5s"} in entry_of["health"]
    assert {
        "file_age": {"path": "/var/lib/kos/state/meter/last.json", "max": "300s"},
        "timeout": "5s",
    } in entry_of["health"]
    assert (entry_of["user"], entry_of["directory"], entry_of["reload"]) == ("kos", TREE, True)


def test_a_unit_without_checks_has_to_answer_on_its_ports() -> None:
    document = small(network={"ingress": [{"port": 9000}, {"port": 9001, "proto": "udp"}]})
    entry_of = render.render([unit.validate(document, "u")], SLOT, nothing_hashed, user_id=uid).units_json[
        "units"
    ]["a"]

    assert entry_of["health"] == [{"tcp": {"host": "127.0.0.1", "port": 9000}, "timeout": "5s"}]


# The verdict of systemd itself.


@pytest.fixture(name="written")
def fixture_written(tmp_path: Path) -> list[Path]:
    """Units of every kind, rendered to files, with their programs in place."""
    slot = tmp_path / RELEASE
    documents = [
        FULL,
        small(),
        {**entry(command=["python3", "-c", "print('50% of $HOME; \"x\" \\\\')"]), "id": "quoted"},
        {**entry(type="oneshot", every="60s"), "id": "periodic"},
        {**entry(type="oneshot"), "id": "once"},
    ]
    for program in ("bin/a", "bin/meter"):
        path = slot / "tree" / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o555)
    units = [unit.validate(document, "u") for document in documents]
    # An account that every machine has: this one has no account kos.
    units = [replace(one, entry=replace(one.entry, user="daemon")) for one in units]
    (slot / "units").mkdir()
    for name, data in render.render(units, slot, nothing_hashed).files.items():
        (slot / name).write_bytes(data)
    return sorted((slot / "units").iterdir())


@pytest.fixture(name="analyze")
def fixture_analyze() -> str:
    found = shutil.which("systemd-analyze")
    assert found, "systemd-analyze is missing; the package systemd brings it"
    return found


def test_systemd_has_nothing_to_say_against_a_rendered_unit(written: list[Path], analyze: str) -> None:
    done = subprocess.run(
        [analyze, "verify", "--man=no", *written], capture_output=True, text=True, check=False
    )

    said = [line for line in done.stderr.splitlines() if RELEASE in line]
    assert (done.returncode, said) == (0, [])


def test_systemd_calls_every_service_well_protected(written: list[Path], analyze: str) -> None:
    services = [path for path in written if path.suffix == ".service"]
    for path in services:
        done = subprocess.run(
            [analyze, "security", "--offline=true", "--threshold=18", "--no-pager", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-300:] + done.stderr


# Units that a node adds (S15).


@pytest.fixture(name="node")
def fixture_node(tmp_path: Path) -> NodePaths:
    paths = NodePaths(tmp_path)
    paths.var.mkdir(parents=True)
    paths.units_d.mkdir(parents=True)
    return paths


def add(node: NodePaths, name: str, **changes: Any) -> Path:
    folder = node.units_d / name
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "bin/a").write_text("#!/bin/sh\n")
    (folder / "unit.json").write_bytes(files.canonical({**small(id=name), **changes}))
    return folder


def apply(node: NodePaths, **options: Any) -> render.Change:
    return render.apply_node_units(node, user_id=uid, **options)


def test_an_agent_that_is_added_touches_no_other(node: NodePaths) -> None:
    add(node, "one")
    assert apply(node) == render.Change(added=("one",))
    one = node.node_units / "units/kos-one.service"
    before = one.stat()

    add(node, "two")

    assert apply(node) == render.Change(added=("two",))
    # Reading a file may change when it was read last, so that is left out.
    after = one.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    assert not apply(node)


def test_the_runtime_can_read_the_units_of_the_node_whatever_the_umask_was(node: NodePaths) -> None:
    add(node, "one")
    before = os.umask(0o077)
    try:
        apply(node)
    finally:
        os.umask(before)
    made = [node.node_units, *node.node_units.rglob("*")]
    assert [path for path in made if path.stat().st_mode & 0o444 != 0o444] == []


def test_a_unit_of_the_node_changes_with_its_files_and_goes_with_its_folder(node: NodePaths) -> None:
    folder = add(node, "one")
    apply(node)

    (folder / "bin/a").write_text("#!/bin/sh\necho new\n")
    assert apply(node) == render.Change(changed=("one",))

    shutil.rmtree(folder)
    assert apply(node) == render.Change(removed=("one",))
    assert list((node.node_units / "units").iterdir()) == []
    assert files.read_json(node.node_units / "units.json")["units"] == {}


def test_a_unit_of_the_node_runs_from_its_folder(node: NodePaths) -> None:
    folder = add(node, "one")
    apply(node)

    text = (node.node_units / "units/kos-one.service").read_text()
    assert words(value_of(text, "ExecStart")) == [f"{folder}/bin/a"]
    assert files.read_json(node.node_units / "units.json")["units"]["one"]["from"] == "node"


def test_a_bad_unit_of_the_node_changes_nothing_at_all(node: NodePaths) -> None:
    add(node, "one")
    apply(node)
    before = {path.name: path.read_bytes() for path in (node.node_units / "units").iterdir()}

    add(node, "alpha")
    add(node, "two", tier=9)
    with pytest.raises(InputError, match=r"units\.d/two/unit\.json: tier: must be 3 or less"):
        apply(node)

    assert {path.name: path.read_bytes() for path in (node.node_units / "units").iterdir()} == before


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda node: (add(node, "one"), (node.units_d / "one/unit.json").unlink()),
            r"unit\.json: is missing",
        ),
        (lambda node: add(node, "one", id="two"), "must be one, as its folder; it is two"),
        (lambda node: add(node, "kosd"), "the release has a unit kosd already"),
        (lambda node: add(node, "one", files=["lib"]), "lib is not among the files"),
    ],
)
def test_what_is_wrong_with_a_unit_of_the_node_is_said(node: NodePaths, prepare: Any, message: str) -> None:
    prepare(node)

    with pytest.raises(InputError, match=message):
        apply(node, taken=["kosd"])
