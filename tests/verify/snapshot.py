"""Tells what a machine holds and runs, so that a comparison shows whether anything was touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from bed import Bed

# Where something of kOS could be, without what Ansible, systemd, apt and useradd keep for themselves.
_SCRIPT = r"""
set -eu
cd /
find etc opt srv usr/local var root home -xdev \
    \( -path var/cache -o -path var/log -o -path var/lib/systemd -o -path var/lib/apt -o -path var/lib/dpkg \
       -o -path var/tmp -o -path root/.ansible -o -path etc/.updated -o -path var/.updated \
       -o -path etc/machine-id -o -path var/lib/private \) -prune \
    -o ! -type d ! -name '*-' ! -name .pwd.lock -printf '%p %y %m %u:%g %l %s\n' \
    -o -type d -printf '%p %y %m %u:%g\n'
find etc -type f ! -name '*-' ! -name .pwd.lock ! -path etc/.updated ! -path etc/machine-id \
    -exec sha256sum {} +
for path in var/lib/kos/* var/log/kos run/kos* run/systemd/transient/kos*; do
    # A pattern that nothing fits stays as it is.
    if [ -e "$path" ] || [ -L "$path" ]; then echo "$path"; fi
done
systemctl list-units --plain --no-legend --state=active,activating,failed \
    --type=service,timer,path,socket,target \
    | awk '!/^(user@|user-runtime-dir@|systemd-tmpfiles-clean\.service|systemd-hostnamed)/ \
        { print "unit", $1, $3, $4 }'
"""


def take(bed: Bed, machines: Iterable[str]) -> dict[str, list[str]]:
    """Return what each of the machines holds and runs, a line for each thing."""
    names = list(machines)

    def one(name: str) -> list[str]:
        return sorted(set(bed.exec(name, ["sh", "-c", _SCRIPT]).stdout.splitlines()))

    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


def differences(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """Return a line for each thing that one has and the other has not, with the machine's name."""
    told = []
    for name, lines in after.items():
        was = set(before.get(name, []))
        told += [f"{name} has {line}" for line in lines if line not in was]
        told += [f"{name} has not {line}" for line in sorted(was - set(lines))]
    return told
