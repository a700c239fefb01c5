#!/usr/bin/env bash
# Prints the path of versitygw, the S3 server of the tests, built here from its pinned source by Go.
#
# usage: tools/versitygw/versitygw.sh
#
# A first build takes a minute or two; after that the answer is immediate. Exit 3 says that there is no Go: the
# tests that need the server are then left out, and this says how to get it.
set -euo pipefail
cd "$(dirname "$0")"

build=$(cd ../.. && pwd)/build/tools/versitygw
version=$(sed -n 's|.*github.com/versity/versitygw \(v[0-9.]*\).*|\1|p' go.mod)
stamp=$build/.made-from
wanted=$(cat go.mod go.sum versitygw.sh | sha256sum)

say() { printf 'versitygw: %s\n' "$@" >&2; }

mkdir -p "$build"
exec 9>"$build/.lock"
flock 9
if [[ ! -x $build/bin/versitygw || ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
    if ! command -v go >/dev/null; then
        say "LEFT OUT: there is no Go to build the S3 server of the tests with." \
            "Install Go 1.25 or newer, and start again."
        exit 3
    fi
    say "building $version with $(go version | cut -d' ' -f3); this takes some minutes once"
    rm -f "$stamp"
    GOBIN=$build/bin nice -n 19 go install -trimpath -buildvcs=false -ldflags "-s -w" tool >&2
    printf '%s\n' "$wanted" >"$stamp"
fi
printf '%s\n' "$build/bin/versitygw"
