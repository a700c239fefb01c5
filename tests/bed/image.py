"""Builds the image that nodes boot from: Debian with systemd, made by mmdebstrap, kept between runs.

Everything a node needs from apt is baked in, so that nothing is installed while a test runs. The tag
carries a hash of the recipe: an image is built again when the recipe changes and not before.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from .cgroup import podman_runtime
from .command import BedError, one_at_a_time, run

REPOSITORY = "localhost/kos-node"
SUITES = ("trixie", "bookworm")

PACKAGES = (
    "systemd systemd-sysv dbus openssh-server sudo python3 python3-zstandard nginx "
    "busybox ca-certificates curl e2fsprogs faketime iproute2 less nftables procps strace util-linux"
).split()

# What is backed up, and what backs it up. Debian 12 has a restic that is too old, and no rest-server.
BACKUP_PACKAGES = {
    "trixie": (
        *("pgbackrest", "postgresql", "restic", "restic-rest-server", "sqlite3"),
        # What a KairosChain node runs on.
        *("logrotate", "ruby", "ruby-base64", "ruby-rack", "puma"),
    ),
    "bookworm": (),
}

# A clock or a kernel setting that is set in a privileged container is that of the whole machine, so nothing
# that could set one starts. The rest wants devices of its own, or would wake up in the middle of a test.
MASKED_UNITS = (
    "systemd-timesyncd.service time-sync.target systemd-modules-load.service systemd-sysctl.service "
    "systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-udevd.service "
    "systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket "
    "systemd-firstboot.service systemd-network-generator.service systemd-networkd-wait-online.service "
    "getty.target console-getty.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer "
    "e2scrub_all.timer e2scrub_reap.service fstrim.timer logrotate.timer man-db.timer "
    "dev-hugepages.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount "
    "sys-kernel-tracing.mount"
).split()

UNNEEDED_PATHS = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")

# systemd shares its mounts with what it starts, but not so in a container; without that no service gets the
# credentials that LoadCredential= hands to it.
SHARED_MOUNTS = r"""[Unit]
Description=Mounts are shared with services
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/mount --make-rshared /
""".replace("\n", r"\n")

# Every node gets a host key, a machine id and a name of its own, so the image has none, nor a name server: a
# bed is closed. The last line tells systemd that the first boot finds nothing to update.
CUSTOMISATION = (
    "chroot {root} systemctl disable nginx.service nftables.service",
    "chroot {root} systemctl enable ssh.service",
    f"printf '{SHARED_MOUNTS}' > {{root}}/etc/systemd/system/shared-mounts.service",
    "mkdir -p {root}/etc/systemd/system/sysinit.target.wants",
    "ln -s ../shared-mounts.service {root}/etc/systemd/system/sysinit.target.wants/",
    "rm -f {root}/etc/ssh/ssh_host_*_key {root}/etc/ssh/ssh_host_*_key.pub",
    "rm -f {root}/etc/nginx/sites-enabled/default",
    "rm -f {root}/etc/resolv.conf {root}/etc/hostname",
    ": > {root}/etc/machine-id",
    "touch {root}/etc/.updated {root}/var/.updated",
)

# A server that a test wants is one that it sets up. In a container on a host with both kinds of cgroups
# systemd takes no process for that of a PID file, and finds the main one by itself.
BACKUP_CUSTOMISATION = (
    "chroot {root} systemctl disable postgresql.service",
    "chroot {root} pg_dropcluster 17 main",
    "mkdir -p {root}/etc/systemd/system/postgresql@.service.d",
    r"printf '[Service]\nPIDFile=\n' > {root}/etc/systemd/system/postgresql@.service.d/bed.conf",
)


def tag(suite: str) -> str:
    """Return the tag of the image that today's recipe makes for a Debian suite.

    Raises:
        BedError: The suite is not one that nodes run on.
    """
    recipe = json.dumps(_mmdebstrap(suite, Path("archive"))).encode()
    return f"{REPOSITORY}:{suite}-{hashlib.sha256(recipe).hexdigest()[:12]}"


def ensure(suite: str, say: Callable[[str], None]) -> str:
    """Build the image of a suite unless it is there already, and return its tag."""
    wanted = tag(suite)
    with one_at_a_time(Path(__file__)):
        if run(["podman", "image", "exists", wanted], check=False).returncode == 0:
            return wanted
        say(f"building the node image {wanted} (about a minute; kept for the next run)")
        with tempfile.TemporaryDirectory(prefix="kos-image-") as folder:
            archive = Path(folder) / "root.tar"
            run(_mmdebstrap(suite, archive))
            run(["podman", *podman_runtime(), "import", "--change", "CMD=/sbin/init", str(archive), wanted])
        _remove_superseded(suite, wanted, say)
    return wanted


def _mmdebstrap(suite: str, archive: Path) -> list[str]:
    if suite not in SUITES:
        raise BedError(f"suite {suite!r} is not one of {', '.join(SUITES)}")
    mask = " ".join(f"/etc/systemd/system/{unit}" for unit in MASKED_UNITS)
    hooks = [f'for unit in {mask}; do ln -sf /dev/null "$1$unit"; done']
    backup = BACKUP_PACKAGES[suite]
    customisation = (*CUSTOMISATION, *BACKUP_CUSTOMISATION) if backup else CUSTOMISATION
    hooks += [line.format(root='"$1"') for line in customisation]
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join((*PACKAGES, *backup))}",
        *(f"--dpkgopt=path-exclude={path}" for path in UNNEEDED_PATHS),
        *(f"--customize-hook={hook}" for hook in hooks),
        suite,
        str(archive),
    ]


def _remove_superseded(suite: str, wanted: str, say: Callable[[str], None]) -> None:
    listed = run(["podman", "images", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY]).stdout.split()
    for old in listed:
        if old.startswith(f"{REPOSITORY}:{suite}-") and old != wanted:
            removed = run(["podman", "image", "rm", old], check=False).returncode == 0
            say(f"{'removed' if removed else 'a node still uses'} the superseded image {old}")
