"""Builds the artefact of the collection with the node's bundle inside, the same bytes every time.

ansible-galaxy lists files in the order in which the file system gives them and stamps them with the time of
the build. Here the archive it made is packed anew, sorted and without times, and its two lists with it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Make the bundle, then the artefact, and print its path and hash."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder that gets the artefact")
    out: Path = parser.parse_args().out
    subprocess.run([sys.executable, "tools/bundle.py"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="kos-collection-") as folder:
        galaxy = str(Path(sys.executable).with_name("ansible-galaxy"))
        command = [galaxy, "collection", "build", "--output-path", folder]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        built = next(Path(folder).glob("*.tar.gz"))
        data = pack_anew(built.read_bytes())
    out.mkdir(parents=True, exist_ok=True)
    artefact = out / built.name
    artefact.write_bytes(data)
    print(f"{artefact}  sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


def pack_anew(artefact: bytes) -> bytes:
    """Return an artefact with the same files, sorted by name, and no trace of when it was made."""
    with tarfile.open(fileobj=io.BytesIO(artefact)) as archive:
        members = {member.name.rstrip("/"): member for member in archive.getmembers()}
        contents = {}
        for name, member in members.items():
            file = archive.extractfile(member)
            contents[name] = b"" if file is None else file.read()
    listed = json.loads(contents["FILES.json"])
    listed["files"].sort(key=lambda entry: entry["name"])
    contents["FILES.json"] = in_json(listed)
    manifest = json.loads(contents["MANIFEST.json"])
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(contents["FILES.json"]).hexdigest()
    contents["MANIFEST.json"] = in_json(manifest)

    packed = io.BytesIO()
    # ansible-galaxy finds the two lists soonest at the beginning.
    order = ["MANIFEST.json", "FILES.json", *sorted(contents.keys() - {"MANIFEST.json", "FILES.json"})]
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in order:
            entry = tarfile.TarInfo(name)
            entry.type = members[name].type
            entry.mode = members[name].mode
            entry.size = len(contents[name])
            archive.addfile(entry, io.BytesIO(contents[name]))
    return packed.getvalue()


def in_json(value: object) -> bytes:
    """Return a list of an artefact as ansible-galaxy writes it."""
    return json.dumps(value, indent=True).encode()


if __name__ == "__main__":
    sys.exit(main())
