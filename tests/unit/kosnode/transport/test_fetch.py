"""A mirror that lies about sizes, stalls, dies or never ends costs a bounded time and is named (S17)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.kosnode.transport import hostile
from unit.kosnode.transport.hostile import Conduct, HostileMirror, certificate

from kosnode.errors import DamagedError, InputError
from kosnode.fetch import (
    AbsentError,
    FetchError,
    FileMirror,
    HttpMirror,
    Limits,
    Mirror,
    download,
    download_checked,
    mirrors,
)

QUICK = Limits(timeout_s=0.4, total_s=3, rate=256, window_s=0.5)
CONTENT = bytes(range(256)) * 1000
BOUND = 10 * len(CONTENT)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HostileMirror]:
    folder = tmp_path / "served"
    (folder / "releases").mkdir(parents=True)
    (folder / "releases/a").write_bytes(CONTENT)
    (folder / "releases/b").write_bytes(b"other")
    with HostileMirror(folder) as running:
        yield running


def over_http(server: HostileMirror) -> HttpMirror:
    return HttpMirror(server.url, QUICK)


def fetched(mirror: Mirror, path: str, limit: int = BOUND) -> bytes:
    with mirror.open(path, limit=limit) as body:
        return body.read()


def test_a_file_arrives_whole_and_its_bytes_are_counted(server: HostileMirror) -> None:
    mirror = over_http(server)
    assert fetched(mirror, "releases/a") == CONTENT
    assert fetched(mirror, "releases/b") == b"other"
    assert mirror.received == len(CONTENT) + 5


def test_a_mirror_below_a_path_is_asked_below_that_path(server: HostileMirror) -> None:
    assert fetched(HttpMirror(f"{server.url}/releases/", QUICK), "a") == CONTENT
    assert server.requests[0].path == "releases/a"


def test_an_absent_file_is_told_from_a_broken_mirror(server: HostileMirror) -> None:
    with pytest.raises(AbsentError, match="has no releases/none"):
        fetched(over_http(server), "releases/none")


MISDEEDS: dict[str, tuple[Conduct, str]] = {
    "declares too much": (hostile.oversize(1 << 40), "oversized"),
    "sends without end": (hostile.endless, "Content-Length"),
    "sends a chunk header without end": (hostile.endless_chunks, "Content-Length"),
    "sends a header without end": (hostile.endless_header, "stalled"),
    "says nothing": (hostile.silent, "stalled"),
    "stops in the middle": (hostile.stall(1000), "stalled"),
    "trickles": (hostile.trickle(0.02), "stalled|longer"),
    "dies in the middle": (hostile.die(1000), "broke off"),
    "hangs up at once": (hostile.refuse, "broke off"),
    "declares more than it sends": (hostile.wrong_length(7), "broke off"),
    "redirects": (hostile.redirect("http://127.0.0.1:1/"), "redirected"),
    "redirects to itself": (hostile.redirect("/releases/b"), "redirected"),
    "fails": (hostile.status(500), "status 500"),
    "says nothing in words": (hostile.status(204), "status 204"),
    "codes": (hostile.compressed, "content coding"),
    "answers a range that nobody asked for": (hostile.wrong_range, "begins at byte 1"),
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_a_misbehaving_mirror_is_left_and_its_misdeed_named(server: HostileMirror, misdeed: str) -> None:
    conduct, words = MISDEEDS[misdeed]
    server.misbehave("releases/a", conduct)
    mirror = over_http(server)
    with pytest.raises(FetchError, match=words) as caught:
        fetched(mirror, "releases/a")
    assert caught.value.url == server.url
    assert mirror.received <= len(CONTENT)
    server.behave()
    assert fetched(mirror, "releases/b") == b"other"  # the next answer is not read from the last one's rest


def test_a_mirror_that_nobody_listens_on_cannot_be_connected_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(FetchError, match="cannot connect"):
        fetched(HttpMirror(f"http://127.0.0.1:{port}", QUICK), "a")


def test_proxies_of_the_environment_are_not_used(
    server: HostileMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetched(over_http(server), "releases/b") == b"other"


def test_the_request_names_kosctl_and_asks_for_the_bytes_as_they_are(server: HostileMirror) -> None:
    fetched(over_http(server), "releases/b")
    header = server.requests[0].header
    assert header["user-agent"].startswith("kosctl/")
    assert header["accept-encoding"] == "identity"


def test_a_certificate_that_no_known_authority_signed_is_refused(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    with HostileMirror(tmp_path, tls=pem) as server:
        with pytest.raises(FetchError, match=r"TLS failed.*certificate"):
            fetched(HttpMirror(server.url, QUICK), "own.pem")
        assert fetched(HttpMirror(server.url, QUICK, ca=pem), "own.pem") == pem.read_bytes()


def test_authorities_that_cannot_be_read_are_the_trouble_of_https_mirrors_alone(
    server: HostileMirror, tmp_path: Path
) -> None:
    gone = tmp_path / "ca.pem"
    http, https = mirrors([server.url, "https://127.0.0.1:1"], QUICK, ca=gone)
    assert fetched(http, "releases/b") == b"other"
    with pytest.raises(FetchError, match=r"no authorities can be read from .*ca\.pem: No such file"):
        fetched(https, "releases/b")


class TestResume:
    def test_only_the_rest_of_a_broken_download_is_transferred(
        self, server: HostileMirror, tmp_path: Path
    ) -> None:
        part = tmp_path / "part"
        server.misbehave("releases/a", hostile.die(100_000))
        with pytest.raises(FetchError):
            download(over_http(server), "releases/a", part, limit=BOUND)
        have = part.stat().st_size
        assert 0 < have <= 100_000
        server.behave()
        again = over_http(server)
        assert download(again, "releases/a", part, limit=BOUND) == have
        assert part.read_bytes() == CONTENT
        assert again.received == server.requests[-1].sent == len(CONTENT) - have

    def test_a_complete_download_is_not_fetched_again(self, server: HostileMirror, tmp_path: Path) -> None:
        part = tmp_path / "part"
        part.write_bytes(CONTENT)
        mirror = over_http(server)
        assert download(mirror, "releases/a", part, limit=BOUND) == len(CONTENT)
        assert (part.read_bytes(), mirror.received) == (CONTENT, 0)
        assert download(mirror, "releases/a", part, limit=BOUND, size=len(CONTENT)) == len(CONTENT)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("conduct", [hostile.without_ranges, hostile.status(416)])
    def test_a_mirror_without_ranges_is_taken_from_the_start(
        self, server: HostileMirror, tmp_path: Path, conduct: Conduct
    ) -> None:
        part = tmp_path / "part"
        part.write_bytes(b"x" * 1000)

        def only_ranges(exchange: hostile.Exchange) -> None:
            (conduct if exchange.offset else hostile.honest)(exchange)

        server.misbehave("releases/a", only_ranges)
        assert download(over_http(server), "releases/a", part, limit=BOUND) == 0
        assert part.read_bytes() == CONTENT

    def test_a_range_that_was_not_asked_for_is_refused_and_the_part_kept(
        self, server: HostileMirror, tmp_path: Path
    ) -> None:
        part = tmp_path / "part"
        part.write_bytes(CONTENT[:1000])
        server.misbehave("releases/a", hostile.wrong_range)
        with pytest.raises(FetchError, match="begins at byte 1, 1000 was asked for"):
            download(over_http(server), "releases/a", part, limit=BOUND)
        assert part.read_bytes() == CONTENT[:1000]

    def test_a_part_longer_than_the_file_may_be_is_dropped(
        self, server: HostileMirror, tmp_path: Path
    ) -> None:
        part = tmp_path / "part"
        part.write_bytes(b"x" * (len(CONTENT) + 1))
        assert download(over_http(server), "releases/a", part, limit=BOUND, size=len(CONTENT)) == 0
        assert part.read_bytes() == CONTENT

    def test_a_file_of_another_size_than_is_signed_is_refused_before_its_body(
        self, server: HostileMirror, tmp_path: Path
    ) -> None:
        mirror = over_http(server)
        with pytest.raises(FetchError, match="has 5 bytes, 6 are signed"):
            download(mirror, "releases/b", tmp_path / "part", limit=BOUND, size=6)
        assert mirror.received == 0


class TestWrongBytes:
    @staticmethod
    def exact(part: Path) -> str:
        if part.read_bytes() != CONTENT:
            raise DamagedError("not the bytes")
        return "used"

    def test_a_wrong_beginning_from_an_earlier_attempt_is_fetched_once_more_from_the_start(
        self, server: HostileMirror, tmp_path: Path
    ) -> None:
        part = tmp_path / "part"
        part.write_bytes(b"\0" * 1000)  # what a power cut can leave
        assert download_checked(over_http(server), "releases/a", part, self.exact, limit=BOUND) == "used"
        assert [request.offset for request in server.requests] == [1000, 0]

    def test_wrong_bytes_of_this_mirror_are_dropped_and_not_asked_for_again(
        self, server: HostileMirror, tmp_path: Path
    ) -> None:
        server.misbehave("releases/a", hostile.lie())
        with pytest.raises(FetchError, match="releases/a has wrong bytes: not the bytes"):
            download_checked(over_http(server), "releases/a", tmp_path / "part", self.exact, limit=BOUND)
        assert len(server.requests) == 1
        assert not (tmp_path / "part").exists()


class TestDirectory:
    def test_a_directory_is_a_mirror(self, tmp_path: Path) -> None:
        (tmp_path / "a b").mkdir()
        (tmp_path / "a b/f").write_bytes(CONTENT)
        (mirror,) = mirrors([f"file://{tmp_path}/a%20b"], QUICK)
        assert fetched(mirror, "f") == CONTENT
        with mirror.open("f", offset=10, limit=BOUND) as body:
            assert (body.offset, body.read()) == (10, CONTENT[10:])
        assert mirror.received == 2 * len(CONTENT) - 10

    @pytest.mark.parametrize("path", ["../outside", "x/../../outside", "/outside"])
    def test_nothing_outside_of_it_is_read(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "outside").write_bytes(b"secret")
        (tmp_path / "inside").mkdir()
        with pytest.raises(FetchError, match="relative path"):
            fetched(FileMirror(f"file://{tmp_path}/inside", QUICK), path)

    def test_a_fifo_does_not_hang_the_node(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(FetchError, match="not a regular file"):
            fetched(FileMirror(f"file://{tmp_path}", QUICK), "fifo")

    def test_an_absent_medium_is_told_from_an_absent_file(self, tmp_path: Path) -> None:
        with pytest.raises(AbsentError):
            fetched(FileMirror(f"file://{tmp_path}", QUICK), "none")
        with pytest.raises(FetchError, match="no such directory") as caught:
            fetched(FileMirror(f"file://{tmp_path}/gone", QUICK), "none")
        assert not isinstance(caught.value, AbsentError)

    def test_an_oversized_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(b"x" * 11)
        with pytest.raises(FetchError, match="oversized: 11 bytes, at most 10"):
            fetched(FileMirror(f"file://{tmp_path}", QUICK), "big", limit=10)


class TestAddresses:
    def test_an_empty_mirror_list_is_refused(self) -> None:
        with pytest.raises(InputError, match="mirror list is empty") as caught:
            mirrors([], QUICK)
        assert caught.value.key == "mirrors"

    @pytest.mark.parametrize(
        ("url", "rule"),
        [
            ("ftp://mirror/", "must begin with http"),
            ("mirror/", "must begin with http"),
            ("file://host/dir", "must begin with http"),
            ("http://", "must begin with http"),
            ("http://user:secret@mirror/", "no credentials"),
            ("http://mirror/?token=1", "query or fragment"),
            ("http://mirror:99999/", "not an address"),
        ],
    )
    def test_an_address_that_is_none_is_named_with_its_rule(self, url: str, rule: str) -> None:
        with pytest.raises(InputError, match=rule) as caught:
            mirrors(["http://good/", url], QUICK)
        assert caught.value.key == "mirrors[1]"
        assert "secret" not in caught.value.message


def test_an_endless_body_does_not_grow_the_memory(server: HostileMirror, tmp_path: Path) -> None:
    """The bound is on memory, so the client runs in a process that may have little of it."""
    server.misbehave("releases/a", hostile.oversize(1 << 40))
    script = (
        "import resource, sys; from pathlib import Path; from kosnode.fetch import *\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "mirror = HttpMirror(sys.argv[1], Limits(timeout_s=1, total_s=1))\n"
        "try: download(mirror, 'releases/a', Path(sys.argv[2]), limit=1 << 41)\n"
        "except FetchError as error: print(error.reason)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", script, server.url, str(tmp_path / "part")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "took longer than 1 s" in ran.stdout, ran.stderr
