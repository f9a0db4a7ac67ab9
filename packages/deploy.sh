#!/usr/bin/env bash
# Deploys the functions with doctl, for `make deploy`; the deployer passes over this file. Stops while what it would deploy is
# what .env.example has made up, or would be open although a token is set, and leaves the drain out while both of its URLs are
# the example's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  printf 'deploy: %s\n' "$@" >&2
  exit 1
}

# What no value that is meant has in it.
readonly made_up=(change-me broker.example.com api.example.com 'the output of' 'whsec_...')
readonly guards=(FALLBACK_TOKENS FALLBACK_WEBHOOK_SECRETS) # each keeps strangers out
readonly drain=(FALLBACK_DRAIN_AMQP_URL FALLBACK_DRAIN_TARGET_URL)

# in_file NAME FILE: its value there, without the quotes; the last one counts.
in_file() {
  sed -nE "s/^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*//p" "$2" | tail -n 1 |
    sed -E -e 's/^"([^"]*)".*/\1/' -e t -e "s/^'([^']*)'.*/\1/" -e t -e 's/[[:space:]]*(#.*)?$//'
}

# value NAME: as the deployer finds it.
value() { if [[ -n ${!1:-} ]]; then printf '%s\n' "${!1}"; else in_file "$1" .env; fi; }

# untouched NAME...: each is the example's.
untouched() {
  local name
  for name; do [[ $(value "$name") == "$(in_file "$name" .env.example)" ]] || return 1; done
}

# left NAME: prints what of the example is left in its value.
left() {
  local value part found=''
  value=$(value "$1")
  for part in "${made_up[@]}"; do
    if [[ $value == *"$part"* ]]; then found+=", $part"; fi
  done
  printf '%s' "${found#, }"
}

command -v doctl >/dev/null || die "doctl is missing: https://docs.digitalocean.com/reference/doctl/how-to/install/, then doctl auth init, doctl serverless install, doctl serverless connect"
[[ -f .env ]] || die ".env is missing: cp .env.example .env, and set AMQP_SERVER_URL in it"

options=() faults=()
if untouched "${drain[@]}"; then
  echo "deploy: without the function drain: ${drain[*]} in .env are as in .env.example"
  options=(--exclude fallback/drain)
fi
for name in $(grep -o '\${[A-Za-z0-9_]*}' project.yml | tr -d '${}' | sort -u); do
  if [[ ${#options[@]} -gt 0 && " ${drain[*]} " == *" $name "* ]]; then continue; fi
  found=$(left "$name")
  if [[ -n $found ]]; then faults+=("$name is as in .env.example ($found): put your own in .env"); fi
done
for name in "${guards[@]}"; do
  if [[ -n $(value "$name") ]] && ! grep -qF "\${$name}" project.yml; then
    faults+=("$name is set, and project.yml hands it to no function, which would be open to all: add a line for it, under the function enqueue, like that of FALLBACK_QUEUE")
  fi
done
if [[ ${#faults[@]} -gt 0 ]]; then die "${faults[@]}" "nothing was deployed"; fi
set -x
doctl serverless deploy . ${options[@]+"${options[@]}"}
