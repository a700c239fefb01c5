"""The table of backups: bad input gets one message that names key and rule, before anything is touched."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from kosnode.backup import config
from kosnode.backup.places import Places
from kosnode.errors import InputError, NotFoundError
from kosnode.paths import NodePaths

GOOD: dict[str, Any] = {
    "format": 1,
    "repositories": {"main": {"url": "/srv/repository"}, "away": {"url": "rest:https://b.example/n1/"}},
    "sources": {
        "files": {"class": "high", "method": "tree", "path": "/srv/files", "exclude": ["*.tmp"]},
        "app": {"class": "critical", "method": "sqlite", "path": "/srv/app.db", "service": "app.service"},
        "cache": {"class": "skip", "method": "tree", "path": "/srv/cache"},
    },
}


def without(*keys: str) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return document


def changed(*keys: str, to: object) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return document


def test_a_table_is_read_with_its_defaults() -> None:
    table = config.parse(GOOD, "backup.json")
    assert [one.name for one in table.repositories] == ["main", "away"]
    assert [one.name for one in table.chosen([])] == ["files", "app"]
    assert (table.retention.within, table.retention.minimum, table.interval_s) == ("30d", 7, 86_400)


@pytest.mark.parametrize(
    ("document", "key", "rule"),
    [
        (changed("surprise", to=1), "surprise", "unknown key"),
        (changed("format", to=2), "format", "must be 1"),
        (without("repositories"), "repositories", "is missing"),
        (changed("repositories", to={}), "repositories", "must not be empty"),
        (changed("repositories", "main", "url", to="ftp://x"), "repositories.main.url", "an absolute path"),
        (changed("repositories", "main", "password", to="x"), "repositories.main.password", "unknown key"),
        (
            changed("repositories", "away", "url", to="rest:http://user:secret@b.example/"),
            "repositories.away.url",
            "holds a password",
        ),
        (without("sources", "files", "path"), "sources.files.path", "method tree needs it"),
        (changed("sources", "files", "path", to="srv"), "sources.files.path", "an absolute path"),
        (changed("sources", "files", "path", to="/srv/../etc"), "sources.files.path", "without . and .."),
        (changed("sources", "files", "path", to="/"), "sources.files.path", "not / itself"),
        (changed("sources", "files", "path", to="/srv/x\n"), "sources.files.path", "an absolute path"),
        (changed("sources", "files", "method", to="rsync"), "sources.files.method", "one of"),
        (changed("sources", "files", "class", to="vital"), "sources.files.class", "one of"),
        (changed("sources", "files", "exclude", to=["[a]"]), "sources.files.exclude[0]", "without brackets"),
        (changed("sources", "files", "exclude", to=["!a"]), "sources.files.exclude[0]", "without brackets"),
        (changed("sources", "files", "cluster", to="17/main"), "sources.files.cluster", "says nothing"),
        (changed("sources", "app", "exclude", to=["a"]), "sources.app.exclude", "whole or nothing"),
        (changed("sources", "files", "before", to=["echo"]), "sources.files.before[0]", "must be a list"),
        (changed("sources", "files", "before", to=[[]]), "sources.files.before[0]", "must not be empty"),
        (changed("sources", "files", "service", to="app"), "sources.files.service", "the name of a service"),
        (changed("sources", "app", "path", to="/srv/files/app.db"), "sources.app.path", "within the path"),
        (changed("sources", "Files", to=GOOD["sources"]["cache"]), "sources", "is not allowed"),
        (changed("retention", to={"within": "0d"}), "retention.within", "more than nothing"),
        (changed("retention", to={"within": ""}), "retention.within", "more than nothing"),
        (changed("retention", to={"minimum": 0}), "retention.minimum", "1 or more"),
        (changed("witness", to={"url": "ssh://w"}), "witness.url", "ssh://USER@HOST"),
        (changed("witness", to={"url": "https://u:p@w.example/"}), "witness.url", "holds a password"),
        (changed("backend_timeout_s", to=0), "backend_timeout_s", "1 or more"),
        (changed("interval_s", to="daily"), "interval_s", "must be an integer"),
    ],
)
def test_what_breaks_a_rule_is_named(document: dict[str, Any], key: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule.replace("(", r"\(")) as caught:
        config.parse(document, "backup.json")
    assert caught.value.key == key


@pytest.mark.parametrize("document", [None, [], "x", 1, {"format": True}])
def test_what_is_no_table_at_all_is_refused(document: object) -> None:
    with pytest.raises(InputError):
        config.parse(document, "backup.json")


def test_a_secret_in_an_address_is_not_shown_in_the_message() -> None:
    with pytest.raises(InputError) as caught:
        config.parse(changed("repositories", "main", "url", to="rest:http://u:sesame@h/"), "backup.json")
    assert "sesame" not in caught.value.message


def test_a_source_that_is_skipped_or_unknown_cannot_be_asked_for() -> None:
    table = config.parse(GOOD, "backup.json")
    with pytest.raises(InputError, match="class skip"):
        table.chosen(["cache"])
    with pytest.raises(NotFoundError, match="there are files, app, cache"):
        table.chosen(["nothing"])


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(NodePaths(tmp_path))
    made.secrets.mkdir(parents=True)
    return made


def secret(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def test_a_backends_environment_is_read_and_comments_are_left_out(places: Places) -> None:
    secret(places.environment("away"), "# for rest-server\n\nRESTIC_REST_USERNAME=n1\nAWS_X=a=b\n")
    assert config.read_environment(places, "away") == {"RESTIC_REST_USERNAME": "n1", "AWS_X": "a=b"}
    assert config.read_environment(places, "main") == {}


@pytest.mark.parametrize(
    "line",
    [
        "lower=1",
        "NO",
        "=x",
        "RESTIC_REPOSITORY=/x",
        "RESTIC_PASSWORD_COMMAND=sh",
        "PATH=/tmp",
        "LD_PRELOAD=x",
    ],
)
def test_a_line_that_a_backend_may_not_set_is_named_without_its_value(places: Places, line: str) -> None:
    secret(places.environment("away"), f"AWS_A=sesame\n{line}\n")
    with pytest.raises(InputError, match="line 2") as caught:
        config.read_environment(places, "away")
    assert "sesame" not in caught.value.message


def test_a_password_behind_a_link_is_not_followed(places: Places, tmp_path: Path) -> None:
    secret(tmp_path / "elsewhere", "x")
    places.password("main").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="cannot be read"):
        config.read_password_file(places, "main")
