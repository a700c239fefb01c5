#!/usr/bin/env bash
# Prints the path of the command pulumi: the one on PATH, else one built here from its pinned source by Go.
#
# usage: tools/pulumi/pulumi.sh
#
# A first build takes minutes and some gigabytes of Go's caches; after that the answer is immediate. Exit 3 says
# that there is neither the command nor Go: what needs the engine is then left out, and this says how to get it.
set -euo pipefail
cd "$(dirname "$0")"

build=$(cd ../.. && pwd)/build/tools/pulumi
version=$(sed -n 's|.*github.com/pulumi/pulumi/pkg/v3 \(v[0-9.]*\).*|\1|p' go.mod)
stamp=$build/.made-from
wanted=$(cat go.mod go.sum pulumi.sh | sha256sum)

say() { printf 'pulumi: %s\n' "$@" >&2; }

if on_path=$(command -v pulumi); then
    printf '%s\n' "$on_path"
    exit 0
fi
mkdir -p "$build"
exec 9>"$build/.lock"
flock 9
if [[ ! -x $build/bin/pulumi || ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
    if ! command -v go >/dev/null; then
        say "LEFT OUT: the command pulumi is not on PATH, and there is no Go to build it with." \
            "Install Pulumi as https://www.pulumi.com/docs/install says, or Go 1.25 or newer, and start again."
        exit 3
    fi
    say "building $version with $(go version | cut -d' ' -f3); this takes some minutes once"
    rm -f "$stamp"
    # The Automation API reads the version from the command, which knows it from its linker alone.
    GOBIN=$build/bin nice -n 19 go install -trimpath -buildvcs=false -tags osusergo \
        -ldflags "-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=$version" tool >&2
    printf '%s\n' "$wanted" >"$stamp"
fi
printf '%s\n' "$build/bin/pulumi"
