"""The node bundle: the same bytes every time, nothing compiled, another version for another content."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from ansible_collections.kos.fleet.plugins.plugin_utils import _bundle
from tools import bundle


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "kosnode"
    for name, text in {
        "__init__.py": '__version__ = "1.2.3"\n',
        "cli.py": "def main(): return 0\n",
        "shell/fallback": "#!/bin/sh\n",
        "publish/keys.py": "secret = 1\n",
        "__pycache__/cli.pyc": "",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def wheel(folder: Path, files: dict[str, bytes], name: str = "x-1-py3-none-any.whl") -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for inside, data in files.items():
            archive.writestr(inside, data)
    return path


def names(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def test_the_same_input_gives_the_same_bytes(package: Path, tmp_path: Path) -> None:
    wheels = [wheel(tmp_path, {"x/__init__.py": b"", "x-1.dist-info/RECORD": b"?"})]
    one, two = (bundle.make(package, wheels, tmp_path / place) for place in ("one", "two"))
    assert one == two
    assert (tmp_path / "one" / one["file"]).read_bytes() == (tmp_path / "two" / two["file"]).read_bytes()


def test_a_bundle_holds_engine_wheels_launcher_and_shell_but_no_publisher(
    package: Path, tmp_path: Path
) -> None:
    made = bundle.make(package, [wheel(tmp_path, {"x/__init__.py": b""})], tmp_path / "out")
    assert names(tmp_path / "out" / made["file"]) == [
        "VERSION",
        "bin/kosctl",
        "lib/kosnode/__init__.py",
        "lib/kosnode/cli.py",
        "lib/x/__init__.py",
        "shell/fallback",
    ]


def test_a_changed_engine_is_another_version(package: Path, tmp_path: Path) -> None:
    first = bundle.make(package, [], tmp_path / "out")
    (package / "cli.py").write_text("def main(): return 1\n")
    second = bundle.make(package, [], tmp_path / "out")
    assert first["version"].startswith("1.2.3-")
    assert first["version"] != second["version"]
    assert [path.name for path in (tmp_path / "out").glob("*.tar.gz")] == [second["file"]]


@pytest.mark.parametrize(
    ("inside", "data"), [("x/_fast.so", b""), ("x/data", b"\x7fELF..."), ("x/m.pyc", b""), ("x/w.dll", b"MZ")]
)
def test_compiled_files_are_refused_by_name(package: Path, tmp_path: Path, inside: str, data: bytes) -> None:
    with pytest.raises(bundle.BundleError, match=inside):
        bundle.make(package, [wheel(tmp_path, {inside: data})], tmp_path / "out")


def test_a_wheel_that_is_not_pure_python_is_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(bundle.BundleError, match="cp311"):
        bundle.make(package, [wheel(tmp_path, {}, "x-1-cp311-cp311-linux_x86_64.whl")], tmp_path / "out")


def test_two_wheels_cannot_bring_the_same_file(package: Path, tmp_path: Path) -> None:
    wheels = [wheel(tmp_path, {"x.py": b""}, f"{name}-1-py3-none-any.whl") for name in "ab"]
    with pytest.raises(bundle.BundleError, match="two places"):
        bundle.make(package, wheels, tmp_path / "out")


def test_the_controller_finds_the_collections_bundle_and_checks_its_digest(
    package: Path, tmp_path: Path
) -> None:
    made = bundle.make(package, [], tmp_path)
    found = _bundle.of_collection(tmp_path)
    assert (found.version, found.sha256) == (made["version"], made["sha256"])
    (tmp_path / made["file"]).write_bytes(b"other")
    with pytest.raises(_bundle.BundleError, match="digest"):
        _bundle.of_collection(tmp_path)


def test_a_collection_without_a_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(_bundle.BundleError, match=r"tools/bundle\.py"):
        _bundle.of_collection(tmp_path)


def test_a_bundle_named_by_path_tells_its_own_version(package: Path, tmp_path: Path) -> None:
    made = bundle.make(package, [], tmp_path)
    path = tmp_path / made["file"]
    assert _bundle.named(str(path), None, tmp_path).version == made["version"]
    with pytest.raises(_bundle.BundleError, match="not there"):
        _bundle.named(str(tmp_path / "none"), None, tmp_path)


@pytest.mark.parametrize("size", [0, 5, 200, -30])
def test_a_bundle_that_is_cut_short_or_none_at_all_is_said_to_be_none(
    size: int, package: Path, tmp_path: Path
) -> None:
    whole = (tmp_path / bundle.make(package, [], tmp_path)["file"]).read_bytes()
    for data in (whole[:size], b"no archive"):
        (tmp_path / "cut").write_bytes(data)
        with pytest.raises(_bundle.BundleError, match="not a bundle"):
            _bundle.named(str(tmp_path / "cut"), hashlib.sha256(whole).hexdigest(), tmp_path)


def test_an_address_needs_a_digest_and_other_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(_bundle.BundleError, match="bootstrap_bundle_sha256"):
        _bundle.named("https://127.0.0.1/kosctl.tar.gz", None, tmp_path)
    monkeypatch.setattr(_bundle, "open_url", lambda *_a, **_k: io.BytesIO(b"other"))
    with pytest.raises(_bundle.BundleError, match="other bytes"):
        _bundle.named("https://127.0.0.1/kosctl.tar.gz", hashlib.sha256(b"x").hexdigest(), tmp_path)
    assert json.dumps([path.name for path in tmp_path.glob("kosctl-*")]) == "[]"


def test_wheels_that_are_there_by_their_hash_are_not_fetched_again_and_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = wheel(tmp_path, {"x/__init__.py": b""})
    pinned = tmp_path / "node.txt"
    pinned.write_text(f"x==1 \\\n    --hash=sha256:{hashlib.sha256(kept.read_bytes()).hexdigest()}\n")
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path / "nowhere"))):
        monkeypatch.setenv(name, value)
    assert bundle.download(pinned, tmp_path) == [kept]
    kept.write_bytes(kept.read_bytes() + b"!")
    with pytest.raises(bundle.BundleError, match="pip cannot get the wheels"):
        bundle.download(pinned, tmp_path)
