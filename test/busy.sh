#!/usr/bin/env bash
# busy.sh [ROUNDS [LOOPS]]: runs every test ROUNDS times (3) beside LOOPS endless loops (one for each core), and ends with a
# table of the tests that failed and how often: no test may need a machine that does nothing else. The output of each round is
# kept in dist/.
set -uo pipefail
cd "$(dirname "$0")/.."

readonly rounds=${1:-3} loops=${2:-$(getconf _NPROCESSORS_ONLN)}
[[ $rounds =~ ^[1-9][0-9]*$ && $loops =~ ^[0-9]+$ ]] || { echo "usage: busy.sh [ROUNDS [LOOPS]]" >&2; exit 2; }
mkdir -p dist
rm -f dist/busy-*.log

# What has to be installed, pulled or made is, before the machine is busy.
make rabbitmq compose image function lambda curl || exit 1

# Each loop ends when this script has, in whatever way.
for ((i = 0; i < loops; i++)); do
  while kill -0 $$ 2>/dev/null; do for ((n = 0; n < 100000; n++)); do :; done; done &
  busy[i]=$!
done
trap 'kill ${busy[@]+"${busy[@]}"} 2>/dev/null' EXIT

# What fails without Docker is not to keep the rest from running; and nothing is taken from an earlier round.
suite() {
  local code=0
  GOFLAGS="${GOFLAGS:-} -count=1" make test-unit || code=1
  make test-e2e || code=1
  return $code
}

bad=0 outcome=()
for ((round = 1; round <= rounds; round++)); do
  log=dist/busy-$round.log
  begin=$SECONDS
  printf 'round %d of %d, %d endless loops: ' "$round" "$rounds" "$loops"
  suite >"$log" 2>&1 </dev/null
  outcome[round]=$?
  if [[ ${outcome[round]} == 0 ]]; then said=passed; else said="FAILED, see $log"; bad=$((bad + 1)); fi
  printf '%s after %d s\n' "$said" $((SECONDS - begin))
done

((bad == 0)) && { echo "no test failed in $rounds rounds"; exit 0; }
echo
printf '%-8s %s\n' failed test
# In each round the innermost of what failed. A package may end without a test that failed (a panic, a time-out), and a round
# without a package (the set-up).
for ((round = 1; round <= rounds; round++)); do
  if [[ ${outcome[round]} == 0 ]]; then continue; fi
  awk '
    $1 == "---" && $2 == "FAIL:" { sub(/\/seed_[0-9]+$/, "", $3); failed[$3] = here = 1 }
    $1 == "FAIL" && NF > 1 { if (!here) failed["package " $2] = 1; here = 0 }
    END {
      for (name in failed) for (inner in failed) if (index(inner, name "/") == 1) delete failed[name]
      for (name in failed) { print name; any = 1 }
      if (!any) print "no test: see the log"
    }
  ' "dist/busy-$round.log"
done | sort | uniq -c | sort -rn | while read -r times name; do printf '%-8s %s\n' "$times of $rounds" "$name"; done
exit 1
