"""The operator's gate lets through what is on its list and nothing else, whatever is sent (decision 0003)."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.kosnode.cli.cli_node import CliNode

from kosnode import cli, operate, verbs
from kosnode.backup import cli as backup_cli
from kosnode.backup import witness_cli
from kosnode.command import Result
from kosnode.drill import assignment
from kosnode.drill import cli as drill_cli
from kosnode.errors import InputError
from kosnode.paths import NodePaths

rounds = settings(
    max_examples=int(os.environ.get("KOS_ROUNDS", "60")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
ROOT = "ab" * 32
GOOD: dict[str, Any] = {
    "release": "1.1.0",
    "allow_downgrade": True,
    "accept_risk": False,
    "bake_s": 20,
    "deadline_s": 180,
    "lease": "rollout-1",
    "token": "0" * 64,
    "clear": ROOT,
    "take": "rollout-1",
    "holder": "alice@controller",
    "ttl_s": 600,
    "id": "20261121T120000Z-1a2b3c4d",
    "dry_run": True,
    "node": "n1",
    "repository": "offsite",
    "recovery_key": "the recovery key of n1",
    "environment": {"RESTIC_REST_USERNAME": "n1", "RESTIC_REST_PASSWORD": "a word"},
    "seed": "7",
    "sources": ["docs"],
    "time": "2026-01-31T12:00:00Z",
    "picked": ["n1"],
    "among": ["n1", "n2.example"],
    "lines": [{"seq": 1}],
    "previous": ROOT,
}
REQUIRED_OF_DRILL = ("node", "repository", "recovery_key", "seed")
GOOD_FOR: dict[tuple[str, str], Any] = {
    ("lease", "release"): "rollout-1",
    ("backup run", "source"): ["files", "ledger"],
    ("backup list", "source"): "files",
}
EVIL: list[Any] = [
    "../../etc/passwd",
    "/etc/passwd",
    "-h",
    "--root=/tmp",
    "1.1.0; reboot",
    "1.1.0\n",
    "$(reboot)",
    "http://evil/;",
    "",
    "x" * 5000,
    None,
    [],
    {},
    1.5,
    -1,
    10**12,
    True,
]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What would have run: verbs are replaced by ones that only note their options."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def note(name: str) -> Callable[[verbs.Context, Any], Result]:
        def verb(context: verbs.Context, args: Any) -> Result:
            seen.append((args.verb, vars(args)))
            return Result()

        verb.__doc__ = name
        return verb

    def noted(args: Any) -> Result:
        seen.append((" ".join(filter(None, (args.verb, vars(args).get("what")))), vars(args)))
        return Result()

    functions = (
        "show_status show_plan stage activate confirm revert recover rollback verify scrub gc show_health"
    )
    for name in f"{functions} refusals show_doctor lease show_units show_evidence watch_trial".split():
        monkeypatch.setattr(verbs, name, note(name))
    for name in ("run", "list_runs", "check"):
        monkeypatch.setattr(backup_cli, name, note(name))
    monkeypatch.setattr(drill_cli, "drill", noted)
    monkeypatch.setattr(witness_cli, "witness", noted)
    return seen


def ask(bed: CliNode, request: object) -> dict[str, Any]:
    data = request if isinstance(request, bytes) else json.dumps(request).encode()
    return operate.handle(bed.context(), data).envelope


@pytest.mark.parametrize("verb", sorted(operate.ALLOWED))
def test_each_verb_on_the_list_runs_with_all_its_options(
    bed: CliNode, ran: list[tuple[str, dict[str, Any]]], verb: str
) -> None:
    options = {
        key: GOOD_FOR[verb, key] if (verb, key) in GOOD_FOR else GOOD[key] for key in operate.ALLOWED[verb]
    }
    answered = ask(bed, {"format": 1, "verb": verb, "options": options})
    assert answered["ok"], answered
    assert ran[0][0] == verb
    assert {key: ran[0][1][key] for key in options} == options


@pytest.mark.parametrize(
    "verb", ["host", "repo", "watch", "operate", "scrub", "completion", "", "Status", "status "]
)
def test_other_verbs_are_refused(bed: CliNode, ran: list[tuple[str, dict[str, Any]]], verb: str) -> None:
    answered = ask(bed, {"format": 1, "verb": verb, "options": {}})
    assert (answered["exit"], answered["error"]["key"]) == (2, "verb")
    assert ran == []


@pytest.mark.parametrize(
    "key", ["root", "mirror", "mirrors", "bundle", "token_file", "run", "func", "debug", "make_context"]
)
def test_no_option_names_a_path_a_mirror_or_a_command(
    bed: CliNode, ran: list[tuple[str, dict[str, Any]]], key: str
) -> None:
    for verb in operate.ALLOWED:
        answered = ask(bed, {"format": 1, "verb": verb, "options": {key: "/tmp/x"}})
        assert (answered["exit"], answered["error"]["key"]) == (2, key)
    assert ran == []


@pytest.mark.parametrize("value", EVIL, ids=lambda value: ascii(value)[:20])
def test_each_option_has_a_type_and_a_pattern(value: object) -> None:
    for verb, options in operate.ALLOWED.items():
        for key in options:
            if value is True and key in ("allow_downgrade", "accept_risk", "dry_run"):
                continue
            # A key is any text, and none of these says anything.
            if (key == "recovery_key" and value and isinstance(value, str) and len(value) < 4096) or (
                (key, value) in (("lines", []), ("environment", {}))
            ):
                continue
            whole = {one: GOOD[one] for one in REQUIRED_OF_DRILL} if verb == "drill" else {}
            request = {"format": 1, "verb": verb, "options": {**whole, key: value}}
            with pytest.raises(InputError) as caught:
                operate.parse(json.dumps(request).encode())
            assert caught.value.key in (key, None), (verb, key)


@pytest.mark.parametrize("value", [[], ["../x"], ["files", "/etc"], ["-h"], [1], [["files"]], ["a"] * 257])
def test_a_list_of_sources_holds_names_alone(value: object) -> None:
    request = {"format": 1, "verb": "backup run", "options": {"source": value}}
    with pytest.raises(InputError) as caught:
        operate.parse(json.dumps(request).encode())
    assert caught.value.key == "source"


def drill_with(**options: Any) -> bytes:
    good = {one: GOOD[one] for one in REQUIRED_OF_DRILL}
    return json.dumps({"format": 1, "verb": "drill", "options": {**good, **options}}).encode()


@pytest.mark.parametrize(
    "key",
    [
        *(
            "url",
            "ca",
            "node_keys",
            "witness",
            "table",
            "verifier",
            "production",
            "scratch",
            "host",
            "format",
        ),
        *("interval_s", "reserve_bytes", "backend_timeout_s", "drill_verb", "what", "folder", "hosts"),
    ],
)
def test_a_drill_takes_no_address_key_path_or_command_of_its_caller(
    bed: CliNode, ran: list[tuple[str, dict[str, Any]]], key: str
) -> None:
    answered = operate.handle(bed.context(), drill_with(**{key: "/tmp/x"})).envelope
    assert (answered["exit"], answered["error"]["key"]) == (2, key)
    assert ran == []


@pytest.mark.parametrize(
    "name",
    [
        *(
            "LD_PRELOAD",
            "PATH",
            "RESTIC_PASSWORD_COMMAND",
            "RESTIC_REPOSITORY",
            "SSH_AUTH_SOCK",
            "HTTPS_PROXY",
        ),
        # A file of credentials may name a program to run.
        *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_PROFILE", "AWS_CA_BUNDLE", "HOME"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "RCLONE_CONFIG", "BASH_ENV", "", "AWS_ACCESS_KEY_ID\n"),
    ],
)
def test_credentials_of_a_drill_are_values_and_never_a_file_or_a_command(name: str) -> None:
    with pytest.raises(InputError, match="may not be set here") as caught:
        operate.parse(drill_with(environment={name: "word-of-an-operator"}))
    assert caught.value.key == "environment"
    assert "word-of-an-operator" not in caught.value.message


@pytest.mark.parametrize(
    "options",
    [
        *({"node": name} for name in ("../n1", "n1/../../etc", ".", "..", "n1\x00", "n1\n", "-n1", "ü")),
        *({"repository": name} for name in ("../x", "/srv/x", "rest:http://evil/", "main\n")),
        *({"sources": names} for names in (["../../etc"], ["/etc"], ["a/b"], ["docs", {}], "docs")),
        *({"picked": names} for names in (["../n1"], ["<b>"], ["n"] * 10_001)),
        *({"environment": {"AWS_ACCESS_KEY_ID": value}} for value in ("a\nb", "", 1, None, "x" * 4097)),
        *({"lines": lines} for lines in ({}, ["{}"], [[]])),
        *({"recovery_key": key} for key in ("two\nlines", ["key"], {"file": "/etc/shadow"}, 7)),
        *({"time": text} for text in ("yesterday", "2026-01-31T12:00:00+01:00", "2026-01-31T12:00:00Z ")),
    ],
    ids=ascii,
)
def test_what_a_drill_is_told_is_a_name_or_a_value_and_nothing_else(options: dict[str, Any]) -> None:
    (key,) = options
    with pytest.raises(InputError) as caught:
        operate.parse(drill_with(**options))
    assert caught.value.key == key


@pytest.mark.parametrize("missing", REQUIRED_OF_DRILL)
def test_a_drill_is_told_whose_from_where_with_what_key_and_seed(missing: str) -> None:
    options = {one: GOOD[one] for one in REQUIRED_OF_DRILL if one != missing}
    with pytest.raises(InputError) as caught:
        operate.parse(json.dumps({"format": 1, "verb": "drill", "options": options}).encode())
    assert caught.value.key == missing


def test_only_a_drill_with_its_witness_s_lines_may_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"text": "x" * 1000}] * 100
    assert operate.parse(drill_with(lines=lines))[1]["lines"] == lines
    with pytest.raises(InputError, match="at most 65536"):
        operate.parse(json.dumps({"format": 1, "verb": "status", "options": {}}).encode() + b" " * 65_536)
    monkeypatch.setattr(operate, "MAX_DRILL_BYTES", 70_000)
    with pytest.raises(InputError, match="at most 70000"):
        operate.parse(drill_with(lines=lines))


@pytest.mark.parametrize(
    "verb",
    [
        *("restore", "backup init", "backup forget", "backup unlock", "backup apply", "backup"),
        *("witness", "witness append", "witness serve", "drill status"),
    ],
)
def test_what_is_roots_alone_is_no_verb_of_the_operator(verb: str) -> None:
    with pytest.raises(InputError, match="must be one of"):
        operate.parse(json.dumps({"format": 1, "verb": verb, "options": {}}).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"format":2,"verb":"status","options":{}}',
        b'{"format":true,"verb":"status","options":{}}',
        b'{"format":1,"verb":"status","verb":"gc","options":{}}',
        b'{"format":1,"verb":"status","options":[]}',
        b'{"format":1,"verb":"status","options":{},"more":1}',
        b'{"format":1,"verb":"confirm","options":{}}',
        b'{"format":1,"verb":"evidence","options":{}}',
        b"\xff\xfe",
        b"[" * 70_000,
        b" " * 70_000,
    ],
    ids=range(14),
)
def test_what_is_no_request_is_refused(
    bed: CliNode, ran: list[tuple[str, dict[str, Any]]], data: bytes
) -> None:
    assert ask(bed, data)["exit"] == 2
    assert ran == []


def test_options_may_be_left_out(bed: CliNode) -> None:
    assert ask(bed, {"format": 1, "verb": "status"})["ok"]


def test_the_doctor_writes_no_archive_for_the_operator(bed: CliNode) -> None:
    answered = ask(bed, {"format": 1, "verb": "doctor", "options": {}})
    assert answered["exit"] == 12
    assert "bundle" not in answered["result"]


def test_the_environment_is_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = dict(os.environ)
    try:
        os.environ.update(
            {"LD_PRELOAD": "/tmp/x.so", "KOS_ROOT": "/tmp", "PYTHONPATH": "/tmp", "SUDO_USER": "kosops"}
        )
        operate.scrub_environment()
        assert os.environ["SUDO_USER"] == "kosops"
        assert os.environ["PATH"] == "/usr/sbin:/usr/bin:/sbin:/bin"
        assert not {"LD_PRELOAD", "KOS_ROOT", "PYTHONPATH"} & set(os.environ)
    finally:
        os.environ.clear()
        os.environ.update(before)


texts = st.text(max_size=40) | st.sampled_from(
    [*GOOD, *operate.ALLOWED, "format", "verb", "options", "scrub", "host"]
)
numbers = st.integers() | st.floats() | st.booleans() | st.none()
values: st.SearchStrategy[Any] = st.recursive(
    numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
requests = st.fixed_dictionaries(
    {"format": st.just(1) | values, "verb": st.sampled_from([*operate.ALLOWED, "scrub", "host"]) | values},
    optional={"options": st.dictionaries(st.sampled_from(sorted(GOOD)) | texts, values, max_size=4)},
)


@rounds
@given(request=requests | values)
def test_whatever_is_sent_only_what_is_on_the_list_runs(bed: CliNode, request: object) -> None:
    """Each accepted request has a verb of the list, options of that verb, and values that fit."""
    data = json.dumps(request).encode()
    try:
        verb, options = operate.parse(data)
    except InputError:
        return
    assert verb in operate.ALLOWED
    for key, value in options.items():
        assert key in operate.ALLOWED[verb]
        if isinstance(value, (list, dict)):
            assert key in ("source", "sources", "picked", "among", "lines", "environment")
            continue
        assert isinstance(value, (str, int))
        if isinstance(value, str) and key != "recovery_key":
            assert len(value) <= 128
            assert not value.startswith(("-", "/", ".")), value
            assert set(value) <= set(string.ascii_letters + string.digits + "._:@/ -")


@rounds
@given(data=st.binary(max_size=300))
def test_no_bytes_make_the_gate_fall_over(bed: CliNode, data: bytes) -> None:
    answered = operate.handle(bed.context(), data).envelope
    assert (answered["exit"], answered["ok"]) == (2, False)


def test_a_drill_of_the_operator_has_each_option_that_is_let_through() -> None:
    assert set(assignment.OPTIONS) == set(operate.ALLOWED["drill"])


def test_the_parser_has_every_option_of_the_list() -> None:
    for verb, options in operate.ALLOWED.items():
        args = vars(cli.build_parser(verb.split()).parse_args(verb.split()))
        assert set(options) <= set(args), verb
        assert NodePaths(args["root"]) == NodePaths()
