#!/usr/bin/env bash
# Builds the function in whose folder it is run, for the platform: see project.yml. The deployer passes over this file; it
# runs the build.sh of each function, which comes here.
set -euo pipefail

die() {
  echo "build.sh: $*" >&2
  exit 1
}

[ -f ../../../go.mod ] || die "no go.mod three folders up: deploy from a full checkout, without --remote-build"
command -v go >/dev/null || die "go is not on the PATH: https://go.dev/doc/install"

# Static, so that it runs on the platform's image whatever is in it; the same bytes from the same sources, in any folder
# and at any commit (-trimpath, -buildvcs=false), so that an unchanged function is seen to be unchanged.
CGO_ENABLED=0 GOOS=linux GOARCH=amd64 GOAMD64=v1 \
  go build -trimpath -buildvcs=false -ldflags='-s -w' -o exec .
