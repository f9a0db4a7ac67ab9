#!/usr/bin/env bash
# vulnerabilities.sh [SECONDS]: fails when a program of ours calls something with a known vulnerability. Where the public database
# cannot be reached within SECONDS (300), it says so in one line, and does not fail. VULNDB=file:///DIR, or another URL, is a
# copy of the database, and has to be there.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly db=${VULNDB:-https://vuln.go.dev} wait=${1:-300}

# macOS has no timeout.
command -v timeout >/dev/null || timeout() { shift; "$@"; }

code=0
said=$(timeout "$wait" go tool -modfile=.ci/tools.mod govulncheck -db "$db" ./... 2>&1) || code=$?
if ((code == 0)); then exit 0; fi
if ((code == 124)); then
  why="no answer within $wait s"
else
  why=$(sed -n 's/^govulncheck: fetching vulnerabilities: //p' <<<"$said")
fi
if [[ -n $why ]]; then
  echo "vulnerabilities: not looked for, their database cannot be reached: $why"
  exit 0
fi
printf '%s\n' "$said" >&2
exit 1
