"""What a drill can do to a repository through its proxy: read it, and nothing else (M13)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kosnode.backup.restic import BackendError
from kosnode.drill.proxy import Proxy
from kosnode.drill.upstream import Folder, Part, Server, is_name

PACK = "ab" * 32


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    store = tmp_path / "repository"
    for name in ("data/ab", "keys", "snapshots", "index", "locks"):
        (store / name).mkdir(parents=True)
    (store / "config").write_bytes(b"config")
    (store / "data/ab" / PACK).write_bytes(bytes(range(100)))
    (store / "data/ab/not-a-pack").write_bytes(b"x")
    (store / "keys" / ("1" * 64)).symlink_to("/etc/hostname")
    return store


@pytest.fixture
def proxy(repository: Path) -> Iterator[Proxy]:
    made = Proxy(Folder(repository))
    yield made
    made.close()


def ask(
    proxy: Proxy, method: str, name: str, *, word: str | None = None, **headers: str
) -> tuple[int, bytes]:
    parts = urlsplit(proxy.url.removeprefix("rest:"))
    path = f"{parts.path}{name}" if word is None else f"/{word}/{name}"
    with closing(HTTPConnection("127.0.0.1", parts.port, timeout=10)) as connection:
        connection.request(method, path, body=b"x" if method in ("POST", "PUT") else None, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_files_parts_of_them_and_lists_are_given(proxy: Proxy) -> None:
    assert ask(proxy, "GET", "config") == (200, b"config")
    assert ask(proxy, "HEAD", "config") == (200, b"")
    assert ask(proxy, "GET", f"data/{PACK}", Range="bytes=10-12") == (206, bytes([10, 11, 12]))
    assert ask(proxy, "GET", f"data/{PACK}", Range="bytes=98-") == (206, bytes([98, 99]))
    status, body = ask(proxy, "GET", "data/")
    assert (status, json.loads(body)) == (200, [{"name": PACK, "size": 100}])
    assert ask(proxy, "GET", "snapshots/") == (200, b"[]")
    assert ask(proxy, "GET", f"data/{'c' * 64}") == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("name", [f"data/{PACK}", f"locks/{'d' * 64}", "?create=true", "config"])
def test_nothing_is_written_or_removed_and_each_attempt_is_counted(
    proxy: Proxy, repository: Path, method: str, name: str
) -> None:
    before = {path: path.lstat().st_mtime_ns for path in repository.rglob("*")}
    assert ask(proxy, method, name)[0] == 405
    assert proxy.refused == 1
    assert {path: path.lstat().st_mtime_ns for path in repository.rglob("*")} == before


def test_who_does_not_know_the_word_is_told_nothing(proxy: Proxy) -> None:
    for word in ("", "x", "x" * 32):
        assert ask(proxy, "GET", "config", word=word)[0] == 404


@pytest.mark.parametrize(
    "name",
    ["../config", "data/../config", "data/ab/not-a-pack", "etc/passwd", "keys/..", f"data/{PACK}/", ""],
)
def test_what_is_no_file_of_a_repository_is_not_asked_for(proxy: Proxy, name: str) -> None:
    assert not is_name(name)
    assert ask(proxy, "GET", name)[0] == 404


def test_a_link_in_a_repository_is_not_followed(proxy: Proxy) -> None:
    assert ask(proxy, "GET", "keys/" + "1" * 64)[0] == 502
    assert "cannot be read" in proxy.errors[0]


def test_what_is_read_within_a_block_is_remembered_and_nothing_after_it(proxy: Proxy) -> None:
    ask(proxy, "GET", "config")
    with proxy.recording() as read:
        ask(proxy, "GET", f"data/{PACK}", Range="bytes=10-12")
        ask(proxy, "HEAD", "config")
    ask(proxy, "GET", "index/")
    assert read == {f"data/{PACK}": [Part(10, 3)]}


def test_a_server_behind_the_proxy_is_read_like_a_directory(proxy: Proxy) -> None:
    behind = Proxy(Server(proxy.url.removeprefix("rest:"), timeout_s=10))
    try:
        assert ask(behind, "GET", "config") == (200, b"config")
        assert ask(behind, "GET", f"data/{PACK}", Range="bytes=10-12") == (206, bytes([10, 11, 12]))
        assert json.loads(ask(behind, "GET", "data/")[1]) == [{"name": PACK, "size": 100}]
        assert ask(behind, "GET", f"data/{'c' * 64}")[0] == 404
        assert ask(behind, "POST", "config")[0] == 405
        assert proxy.refused == 0
    finally:
        behind.close()


def test_a_server_that_is_away_is_told_at_once() -> None:
    with (
        pytest.raises(BackendError, match="does not answer"),
        Server("http://127.0.0.1:9", timeout_s=1).open("config"),
    ):
        pass
