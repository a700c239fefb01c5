"""What systemd is told of backups: runs, checks and removal at their times, a server for other nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SERVER = "kos-backup-server.service"
KOSCTL = "/opt/kos/current/bin/kosctl"
DAY_S = 86_400
# Verb of `kosctl backup`, its command, name of its unit, what it is for, and after how long it has hung.
_JOBS = (
    ("run", "backup run --due", "kos-backup", "Back up the sources of this node", "12h"),
    (
        "check",
        "backup check",
        "kos-backup-check",
        "Check the repositories, and read the next part of their data",
        "12h",
    ),
    (
        "forget",
        "backup forget",
        "kos-backup-forget",
        "Remove snapshots that the retention does not keep",
        "12h",
    ),
)

_WATCH = "kos-drill-status"
# All units of a node that is backed up, and of a host that others are drilled on.
OF_A_NODE = tuple(f"{name}.{kind}" for _, _, name, _, _ in _JOBS for kind in ("timer", "service"))
OF_A_WATCH = (f"{_WATCH}.timer", f"{_WATCH}.service")

_SERVICE = """\
# Written by role kos.fleet.backup; what is changed here is lost.
[Unit]
Description={said}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
# Any exit code but 0, so also that of a snapshot which lacks something, leaves a failed unit.
ExecStart={kosctl} {words} --json
TimeoutStartSec={limit}
# Two of them at once is one too many, and the other one is soon done.
RestartForceExitStatus=5
RestartSec=60
Nice=10
IOSchedulingClass=idle
UMask=0077
# It needs root: files of all owners are read, and hooks may be anything. What no backup needs is taken away.
ProtectSystem=full
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
PrivateDevices=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
"""

_TIMER = """\
# Written by role kos.fleet.backup; what is changed here is lost.
[Unit]
Description={said}, at its time

[Timer]
OnCalendar={when}
{often}
Persistent=yes

[Install]
WantedBy=timers.target
"""

_SELDOM = "RandomizedDelaySec=10min"
_OFTEN = """\
OnActiveSec={pause_s}
OnUnitInactiveSec={pause_s}
RandomizedDelaySec={delay_s}
AccuracySec=1"""

_SERVER = """\
# Written by role kos.fleet.backup; what is changed here is lost.
[Unit]
Description=Backups of other nodes, which may add and not remove
After=network.target

[Service]
User=restic-rest-server
Group=restic-rest-server
UMask=0077
ExecStart=/usr/bin/restic-rest-server --path {root} --listen {listen} --append-only --private-repos \
--htpasswd-file /etc/kos-backup-server/htpasswd{tls}
Restart=on-failure
RestartSec=2
ReadWritePaths={root}
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""


def jobs(calendar: Mapping[str, str], interval_s: int = DAY_S) -> dict[str, str]:
    """Return the units of a node that is backed up, text by name.

    Args:
        calendar: when each verb is run; one that is absent is not.
        interval_s: the shortest interval of a source; below a day the runs follow it as well.
    """
    found = {}
    for verb, words, name, said, limit in _JOBS:
        if verb in calendar:
            found[f"{name}.service"] = _SERVICE.format(said=said, kosctl=KOSCTL, words=words, limit=limit)
            often = _often(interval_s) if verb == "run" and interval_s < DAY_S else _SELDOM
            found[f"{name}.timer"] = _TIMER.format(said=said, when=calendar[verb], often=often)
    return found


def _often(interval_s: int) -> str:
    """Return the lines of a timer that leave a tenth of the interval to the run itself."""
    pause_s = max(1, interval_s * 8 // 10)
    return _OFTEN.format(pause_s=pause_s, delay_s=min(600, interval_s // 10))


def watch(nodes: Sequence[str]) -> dict[str, str]:
    """Return the units of a host that others are drilled on, text by name; none where no node is.

    Args:
        nodes: whose drills must not be overdue.
    """
    if not nodes:
        return {}
    said = "Look whether a drill is overdue, or was not VERIFIED"
    words = " ".join(["drill status", *(f"--node {name}" for name in nodes)])
    return {
        f"{_WATCH}.service": _SERVICE.format(said=said, kosctl=KOSCTL, words=words, limit="10min"),
        f"{_WATCH}.timer": _TIMER.format(said=said, when="daily", often=_SELDOM),
    }


def server(root: str, listen: str, *, tls: bool) -> str:
    """Return the unit of a target.

    Args:
        root: folder of the repositories.
        listen: ADDRESS:PORT.
        tls: whether there are certificate and key beside the passwords.
    """
    etc = "/etc/kos-backup-server"
    words = f" --tls --tls-cert {etc}/tls.crt --tls-key {etc}/tls.key" if tls else ""
    return _SERVER.format(root=root, listen=listen, tls=words)
