#!/usr/bin/env bash
# Installs what the checks, the local fleet and the benchmarks need, and says so; quick when all is there.
#
# usage: tools/setup.sh [bench | infra]
#
# Debian packages come from apt-get, as root or through sudo; Python packages go into .venv, each with the hash
# that requirements/dev.txt gives. With "bench" come the programs that the benchmarks compare with, with "infra"
# the environment build/environments/infra, in which the Pulumi programs and their tests run.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    podman runc netavark mmdebstrap debian-archive-keyring # the node image and its containers
    iproute2 nftables openssh-client                       # the network of a bed, and the way in
    strace faketime busybox dash shellcheck zstd           # faults, wrong clocks, the shells that scripts must run in
    chromium fonts-dejavu-core                             # the browser that looks at the status page
    ruby                                                   # the stand-in for the gem kairos-chain, a peer of the benchmarks
    postgresql pgbackrest openssh-sftp-server curl         # what backups are made of; the tests make clusters, and buckets
    git make ca-certificates
)
bench_packages=(casync ostree)
stamp=.venv/.made-from

say() { printf 'setup: %s\n' "$*"; }

die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# The lock is not handed down (9>&-): a service that apt starts would hold it for ever.
lock() {
    mkdir -p build
    exec 9>build/.setup.lock
    if ! flock --nonblock 9; then
        say "another set-up is at work in this folder; waiting for it"
        flock 9
    fi
}

check_system() {
    # shellcheck source=/dev/null
    . /etc/os-release
    case "${ID:-}-${VERSION_ID:-}" in
        debian-12 | debian-13) ;;
        *) die "this needs Debian 12 or 13, and this machine is ${PRETTY_NAME:-of an unknown kind}" ;;
    esac
}

# ansible-core 2.19 runs on Python 3.11 to 3.13. Debian has venv in a package of its own, so try that too.
usable_python() {
    "$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null 9>&-
}

find_python() {
    local candidate
    for candidate in python3 python3.11 python3.12 python3.13 /usr/bin/python3; do
        if usable_python "$candidate"; then
            printf '%s' "$candidate"
            return
        fi
    done
}

missing_packages() {
    local installed name
    installed=" $(dpkg-query --show --showformat='${db:Status-Status}:${Package} ' 2>/dev/null) "
    for name in "$@"; do
        [[ $installed == *" installed:$name "* ]] || printf '%s ' "$name"
    done
}

install_packages() {
    local root=() missing
    read -ra missing <<<"$(missing_packages "$@")"
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        if ! sudo --non-interactive true 2>/dev/null; then
            die "these Debian packages are missing, and sudo wants a password. Run this once, then start again:" \
                "  sudo sh -c 'apt-get update && apt-get install --yes --no-install-recommends ${missing[*]}'"
        fi
        root=(sudo --non-interactive)
    fi
    say "installing the Debian packages: ${missing[*]}"
    if ! "${root[@]}" apt-get update --quiet=2 9>&-; then
        say "the package lists could not all be renewed; going on with those that are there"
    fi
    if [[ " ${missing[*]} " == *" postgresql "* ]]; then
        # Debian's package would make a cluster and start it at each boot.
        "${root[@]}" sh -c 'mkdir -p /etc/postgresql-common/createcluster.d &&
            echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/kos-fleet.conf'
    fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a apt-get install --yes --quiet=2 \
        --no-install-recommends --option DPkg::Lock::Timeout=900 --option Dpkg::Use-Pty=0 "${missing[@]}" \
        >build/setup-packages.log 2>&1 9>&- ||
        die "apt-get could not install them; build/setup-packages.log has all that it said, and its end is:" \
            "$(tail --lines=5 build/setup-packages.log)"
}

make_venv() {
    local python=$1 wanted
    wanted=$(sha256sum requirements/dev.txt)
    if [[ $python == .venv/* && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return
    fi
    if [[ $python != .venv/* ]]; then
        say "making .venv with $("$python" --version 9>&-)"
        "$python" -m venv --clear .venv 9>&- || die "$python could not make .venv"
    fi
    say "installing the Python packages of requirements/dev.txt into .venv (a minute or two)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        --requirement requirements/dev.txt 9>&- ||
        die "pip could not install requirements/dev.txt; what it said is above"
    printf '%s\n' "$wanted" >"$stamp"
}

# Pulumi's SDK has dependencies that nothing else here needs, so .venv stays without it.
make_infra() {
    local folder=build/environments/infra wanted
    wanted=$(sha256sum requirements/infra.txt)
    if [[ -f $folder/.made-from && $(<"$folder/.made-from") == "$wanted" ]]; then
        return
    fi
    say "installing the Python packages of requirements/infra.txt into $folder (a minute or two)"
    .venv/bin/python -m venv --clear "$folder" 9>&- || die "python could not make $folder"
    # Of its thousands of modules few are used, and those are compiled when they are.
    "$folder/bin/python" -m pip install --no-compile --quiet --disable-pip-version-check --require-hashes \
        --requirement requirements/infra.txt 9>&- ||
        die "pip could not install requirements/infra.txt; what it said is above"
    printf '%s\n' "$wanted" >"$folder/.made-from"
}

# Ansible finds a collection by its path, which has to end in ansible_collections/kos/fleet.
link_collection() {
    mkdir -p build/ansible_collections/kos
    [[ -L build/ansible_collections/kos/fleet ]] || ln -s ../../.. build/ansible_collections/kos/fleet
}

# What the guides call kosctl, on the controller.
make_command() {
    local program="#!/bin/sh
PYTHONPATH='$PWD/runtime' exec '$PWD/.venv/bin/python' -m kosnode \"\$@\""
    [[ -x .venv/bin/kosctl && $(<.venv/bin/kosctl) == "$program" ]] && return
    printf '%s\n' "$program" >.venv/bin/kosctl
    chmod 755 .venv/bin/kosctl
}

check_system
lock
if [[ ${1:-} == bench ]]; then
    packages+=("${bench_packages[@]}")
fi
python=.venv/bin/python
usable_python "$python" || python=$(find_python)
if [[ -z $python ]]; then
    packages+=(python3 python3-venv)
fi
install_packages "${packages[@]}"
if [[ -z $python ]]; then
    python=$(find_python)
    [[ -n $python ]] || die "no Python from 3.11 to 3.13 is here, nor in this Debian's packages"
fi
make_venv "$python"
make_command
link_collection
if [[ ${1:-} == infra ]]; then
    make_infra
fi
