# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host needs before kosctl can live on it: one probe in POSIX shell, and what is missing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

MIN_PYTHON = (3, 10)
MIN_SYSTEMD = 252
MIN_FREE_KIB = 64 * 1024

# Debian's package for each program that is needed.
PROGRAMS = {
    "flock": "util-linux",
    "ssh-keygen": "openssh-client",
    "sudo": "sudo",
    "systemd-run": "systemd",
    "timeout": "coreutils",
    "useradd": "passwd",
    "visudo": "sudo",
}
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

_PROBE = r"""
PATH=/usr/sbin:/usr/bin:/sbin:/bin
say() { printf '%s=%s\n' "$1" "$2"; }
say uid "$(id -u)"
say machine "$(uname -m)"
say bits "$(getconf LONG_BIT 2>/dev/null)"
/usr/bin/python3 -I -B -c '
import sys
print("python=%d.%d" % sys.version_info[:2])
try:
    import zstandard
    print("zstandard=" + zstandard.__version__)
except Exception:
    pass
' 2>/dev/null
say init "$(cat /proc/1/comm 2>/dev/null)"
say systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
for program in PROGRAMS; do
    if command -v "$program" >/dev/null 2>&1; then say "has_$program" yes; fi
done
free=$(df -Pk /var/lib /opt 2>/dev/null | awk 'NR > 1 { print $4 }' | sort -n | head -n 1)
say free_kib "$free"
say current "$(readlink /opt/kos/current 2>/dev/null)"
say digest "$(cat /opt/kos/VERSION/.sha256 2>/dev/null)"
say unpacked "$(if [ -x /opt/kos/VERSION/bin/kosctl ]; then echo yes; fi)"
"""


@dataclass(frozen=True)
class Probe:
    """What the probe found.

    Args:
        facts: as printed.
    """

    facts: Mapping[str, str]

    @property
    def root(self) -> bool:
        return self.facts.get("uid") == "0"

    @property
    def arch(self) -> str | None:
        """The architecture of the userland: a 64-bit kernel may run 32-bit programs."""
        if self.facts.get("bits") != "64":
            return None
        return _ARCHITECTURES.get(self.facts.get("machine", ""))

    @property
    def bootstrapped(self) -> bool:
        """Whether some kosctl is on the host."""
        return bool(self.facts.get("current"))

    def has_engine(self, sha256: str) -> bool:
        """Whether the engine of that bundle is unpacked whole."""
        return self.facts.get("unpacked") == "yes" and self.facts.get("digest") == sha256

    def missing(self) -> list[str]:
        """Return a phrase for each thing that the host lacks."""
        facts = self.facts
        told = []
        python = facts.get("python", "")
        wanted = ".".join(map(str, MIN_PYTHON))
        if not python:
            told.append(f"Python {wanted} or later as /usr/bin/python3 (package python3)")
        elif tuple(map(int, python.split("."))) < MIN_PYTHON:
            told.append(f"Python {wanted} or later as /usr/bin/python3 (it is {python})")
        if python and not facts.get("zstandard"):
            told.append("the Python module zstandard (package python3-zstandard)")
        if facts.get("init") != "systemd":
            told.append(f"systemd as process 1 (it is {facts.get('init') or 'not known'})")
        elif not facts.get("systemd", "").isdigit() or int(facts["systemd"]) < MIN_SYSTEMD:
            told.append(f"systemd {MIN_SYSTEMD} or later (it is {facts.get('systemd') or 'not known'})")
        if self.arch is None:
            told.append(
                f"a 64-bit userland for x86_64 or aarch64 (it is {facts.get('bits') or '?'}-bit on "
                f"{facts.get('machine') or 'an unknown machine'})"
            )
        told += [
            f"{name} (package {package})" for name, package in PROGRAMS.items() if f"has_{name}" not in facts
        ]
        free = facts.get("free_kib", "")
        if free.isdigit() and int(free) < MIN_FREE_KIB:
            short = (MIN_FREE_KIB - int(free)) * 1024
            told.append(
                f"{MIN_FREE_KIB // 1024} MiB of free disk in /var/lib and /opt ({short} bytes are missing)"
            )
        return told


def script(version: str) -> str:
    """Return the probe for the engine of a version."""
    return _PROBE.replace("PROGRAMS", " ".join(PROGRAMS)).replace("/VERSION/", f"/{shlex.quote(version)}/")


def read(stdout: str) -> Probe:
    """Read what the probe printed."""
    pairs = (line.partition("=") for line in stdout.splitlines() if "=" in line)
    return Probe({name.strip(): value.strip() for name, _sign, value in pairs})


def lacks(node: str, missing: list[str]) -> str:
    """Return the one message for a host that cannot be a node."""
    packages = sorted({part.split("(package ")[1].rstrip(")") for part in missing if "(package " in part})
    help_text = f" On Debian: apt install {' '.join(packages)}." if packages else ""
    return f"{node} lacks {'; '.join(missing)}. Nothing was changed.{help_text}"
