"""Targets behind TLS and SFTP and a witness behind HTTP, with the real servers on loopback (K14, K15)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backup.backup_node import RECOVERY, RUNTIME, BackupNode
from backup.files import listing, tree
from backup.servers import free_port, listening, rest_server


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Return a certificate for 127.0.0.1 that vouches for itself, and its key."""
    made, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=target", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv = ["openssl", "req", "-x509", *words, "-keyout", str(key), "-out", str(made)]
    subprocess.run(argv, check=True, capture_output=True)
    return made, key


def test_a_target_behind_tls_is_believed_by_its_certificate_alone(
    node: BackupNode, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    data, store = tree(tmp_path), tmp_path / "served"
    node.repository(store)
    made, key = certificate
    sources = {"files": {"class": "high", "method": "tree", "path": str(data)}}
    with rest_server(node.programs, store, "--tls", "--tls-cert", str(made), "--tls-key", str(key)) as server:
        url = f"rest:https://127.0.0.1:{server.port}/"
        node.configure(sources, {"main": {"url": url}}, backend_timeout_s=5)
        assert node.kosctl("backup", "init", stdin="a recovery key")["exit"] == 6
        node.configure(sources, {"main": {"url": url, "ca": str(made)}})
        node.init()
        node.run()
        before = listing(data)
        shutil.rmtree(data)
        assert node.kosctl("restore", "files")["ok"]
    assert listing(data) == before


@pytest.mark.fault
def test_a_wrong_password_of_the_server_is_told_and_nothing_is_touched(
    node: BackupNode, tmp_path: Path
) -> None:
    data, store = tree(tmp_path), tmp_path / "served"
    node.repository(store / "n1")
    # The format of `htpasswd -s`.
    (store / ".htpasswd").write_text("n1:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")
    port = free_port()
    argv = [str(node.programs / "restic-rest-server"), "--path", str(store), "--private-repos"]
    with listening([*argv, "--listen", f"127.0.0.1:{port}"], port) as server:
        sources = {"files": {"class": "high", "method": "tree", "path": str(data)}}
        node.configure(sources, {"main": {"url": f"{server.url}n1/"}})
        node.secret("main.env", "RESTIC_REST_USERNAME=n1\nRESTIC_REST_PASSWORD=password\n")
        node.init()
        node.run()
        node.secret("main.env", "RESTIC_REST_USERNAME=n1\nRESTIC_REST_PASSWORD=of somebody else\n")
        before, live = listing(store), listing(data)
        for words in ("backup run", "backup check", "restore files"):
            message = node.refused(13, *words.split())
            assert "repository main does not accept its credentials: " in message
            assert message.endswith("401 Unauthorized")
            assert "somebody" not in message
        assert (listing(store), listing(data)) == (before, live)


def test_a_target_over_sftp_is_backed_up_to_checked_and_restored_from(
    node: BackupNode, tmp_path: Path
) -> None:
    """The server is OpenSSH's; only the connection is stood in for, by a pipe."""
    data, store, ssh = tree(tmp_path), tmp_path / "store", tmp_path / "bin/ssh"
    node.repository(store)
    ssh.parent.mkdir()
    ssh.write_text('#!/bin/sh\necho "$@" >>"$0.log"\nexec /usr/lib/openssh/sftp-server\n')
    ssh.chmod(0o755)
    path = f"{ssh.parent}:{node.programs}:/usr/bin:/bin"
    sources = {"files": {"class": "high", "method": "tree", "path": str(data)}}
    node.configure(sources, {"main": {"url": f"sftp:backup@target:{store}"}})
    for words, stdin in ((("backup", "init"), RECOVERY), (("backup", "run"), ""), (("backup", "check"), "")):
        answer = node.kosctl(*words, stdin=stdin, PATH=path)
        assert answer["ok"], (words, answer["error"], answer["progress"])
    before = listing(data)
    shutil.rmtree(data)
    assert node.kosctl("restore", "files", PATH=path)["ok"]
    assert listing(data) == before
    assert "target -l backup -s sftp" in ssh.with_name("ssh.log").read_text()


@pytest.mark.fault
def test_a_witness_over_http_takes_lines_gives_them_and_stops_runs_when_it_is_gone_or_was_cut(
    node: BackupNode, tmp_path: Path
) -> None:
    data, folder, port = tree(tmp_path), tmp_path / "witness", free_port()
    folder.mkdir()
    argv = [sys.executable, "-m", "kosnode", "witness", "serve", "--folder", str(folder)]
    serve = ["env", f"PYTHONPATH={RUNTIME}", *argv, "--listen", f"127.0.0.1:{port}"]
    with listening(serve, port):
        node.tree(data, witness={"url": f"http://127.0.0.1:{port}"})
        assert "does not know node n1" in node.refused(3, "backup", "run")
        shutil.copy(node.etc / "keys/node.pub", folder / "n1.pub")
        node.run()
        node.run()
        answer = node.kosctl("restore", "files", "--to", str(tmp_path / "out"))
        assert (answer["ok"], answer["result"]["verified"]["witness"]) == (True, True)
        lines = folder / "n1.jsonl"
        kept = lines.read_text()
        lines.write_text(kept.splitlines()[0] + "\n")
        assert "contradicts" in node.refused(3, "backup", "run")
        lines.write_text(kept)
    assert "cannot be reached" in node.refused(6, "backup", "run")
    with listening(serve, port):
        node.run()
    assert len(lines.read_text().splitlines()) == 3
