#!/usr/bin/env bash
# fuzz.sh TIME: runs each fuzz target of the module for TIME (5s, 1m), and fails when one has failed. The targets are those that
# the tests have, so there is no list to keep. What finds new ways through the code stays in Go's cache, for the next time; an
# input that fails is in the package's testdata/fuzz: commit it with the mend.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly each=${1:-}
[[ $each =~ ^[0-9] ]] || { echo "usage: fuzz.sh TIME, for example 5s" >&2; exit 2; }

# Each line is a package and a target; go test tells a package after its targets.
targets() {
  go test -list '^Fuzz' ./... | awk '/^Fuzz/ { name[n++] = $1 } $1 == "ok" { for (i = 0; i < n; i++) print $2, name[i]; n = 0 }'
}

# An interesting input is made smaller in a hundred tries, and not for a minute, in which nothing else is tried.
fuzz() { go test -run '^$' -fuzz "^$2\$" -fuzztime "$each" -fuzzminimizetime 100x "$1" 2>&1; }

# Up to Go 1.26, the end of the time may itself be taken for a failure. A real one has an input, or a line of a test's.
only_out_of_time() {
  grep -qx ' *context deadline exceeded' <<<"$1" && ! grep -Eq 'Failing input|panic:|_test\.go:' <<<"$1"
}

all=$(targets)
[[ -n $all ]] || { echo "fuzz: no target in this module" >&2; exit 1; }
failed=()
while read -r package target; do
  if said=$(fuzz "$package" "$target") || only_out_of_time "$said"; then
    tried=$(sed -n 's/^fuzz: .* execs: \([0-9]*\).*/\1/p' <<<"$said" | tail -n 1)
    printf '%-16s %10s inputs  %s\n' "$target" "${tried:-0}" "$package"
  else
    printf '%s\n' "$said"
    failed+=("$target")
  fi
done <<<"$all"
((${#failed[@]} == 0)) || { echo "fuzz: failed: ${failed[*]}" >&2; exit 1; }
