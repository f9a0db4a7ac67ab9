#!/usr/bin/env bash
# What `make up` does: it starts the bundle and tells its story. The primary is down, a request is accepted and waits on the
# queue, the primary is up, the request is delivered. Ends with 1 when it is not so.
#
#   [ENV_FILE=FILE] story.sh docker compose [--env-file FILE]...
#
# What it tells to type repeats ENV_FILE as it was given to make.
#
# The story has a small primary of its own, and what the drain delivers to that one is gone. So it is told only where no
# request of a real API can be taken for the story's; else the bundle is started as it is configured, and nothing is sent.
set -euo pipefail

readonly compose=("$@")
readonly demo=("$@" --profile demo)
readonly given=${ENV_FILE:+ ENV_FILE=$ENV_FILE}
# The story's own request, told from all others by it, also when a story was broken off.
readonly target='/orders?source=make-up'
readonly start_wait=600 seen_wait=60 delivered_wait=60

say() { printf '\n%s\n' "$@"; }
# die also stops the story's drain, which delivers to the small primary.
die() {
  if [[ -n $draining ]]; then quiet "${compose[@]}" stop drain || true; fi
  printf '\nmake up: %s\n' "$@" >&2
  exit 1
}
draining=''

# By itself, bash goes on when an interrupt has ended a command that ends in order then, as docker does.
trap 'die "broken off; it may have left a request on the queue, which the next \`make up$given\` delivers"' INT TERM

# quiet COMMAND...: what it says is of interest only when it fails.
quiet() {
  local said
  if said=$("$@" 2>&1 </dev/null); then return 0; fi
  printf '%s\n' "$said" >&2
  return 1
}

# wait_for SECONDS COMMAND...
wait_for() {
  local until=$((SECONDS + $1)); shift
  until "$@"; do
    if ((SECONDS >= until)); then return 1; fi
    sleep 0.3
  done
}

# env_files prints those that Compose reads.
env_files() {
  local i named=''
  for ((i = 0; i < ${#compose[@]}; i++)); do
    if [[ ${compose[i]} == --env-file ]]; then named=yes; echo "${compose[i + 1]}"; fi
  done
  if [[ -z $named && -f .env ]]; then echo .env; fi
}

# names prints what the shell or an env file sets to something.
names() {
  local name file
  for name in $(compgen -e); do
    if [[ -n ${!name-} ]]; then echo "$name"; fi
  done
  env_files | while read -r file; do
    sed -nE "s/^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*=[[:space:]]*([^[:space:]\"'#]|\"[^\"]|'[^']).*/\2/p" "$file"
  done
}

# tell_unknown tells the names that are no settings: Compose hands on those that it lists, and says nothing of others. A slip
# that would open the door ends all.
tell_unknown() {
  local told
  # shellcheck disable=SC2046  # words on purpose
  told=$(docker run --rm --network none fallback settings --unknown $(names | sort -u)) || die "$told"
  if [[ -n $told ]]; then say "$told"; fi
}

# check_passwords ends all, before anything that runs is touched, when ENV_FILE was forgotten.
check_passwords() { "${compose[@]}" run --rm -T --no-deps passwords </dev/null || die "nothing was started or stopped"; }

# setting NAME: what the shell, .env and the env file make of it.
setting() { sed -n "s/^ *$1: *//p" <<<"$config" | tr -d "\"'" | sed -n 1p; }

own_passwords() { [[ $config != *:demonstration-fallback-drainer@* ]]; }

# ask ARGUMENTS CURL-ARGUMENTS...: shows a request as one would type it, and sends it.
ask() {
  printf '$ curl %s\n' "$1"; shift
  web "$@"
}
web() { curl --silent --show-error --noproxy '*' --max-time 10 "$@"; }

queues() { "${compose[@]}" exec -T server /fallback queues </dev/null; }
show_queues() { printf '$ %s exec server /fallback queues\n' "${compose[*]}" && queues; }
main_waits() { queues | awk 'NR == 2 && $2 + 0 > 0 { yes = 1 } END { exit !yes }'; }
main_is_empty() { queues | awk 'NR == 2 && $2 == "0" { yes = 1 } END { exit !yes }'; }

# others prints a line for each request that waits and is not the story's, as far as the users of the bundle can see. The
# count of `queues` may be some seconds old; a look at the queue itself is not.
others() {
  "${compose[@]}" run --rm -T --no-deps drain peek main --most 100 </dev/null | awk -v story="$target" 'NR > 1 && $3 != story' &&
    queues | awk '$1 ~ /\.retry\./ && $2 + 0 > 0'
}

# start_demo starts all but the drain, with a primary that remembers nothing of the last story.
start_demo() {
  quiet "${compose[@]}" stop drain # first: nothing is to be delivered while we look at what waits
  quiet "${demo[@]}" rm --stop --force primary
  "${demo[@]}" up --detach --wait --wait-timeout "$start_wait" --no-build rabbitmq server primary
}

# start_configured starts what `docker compose up` does, which has no primary.
start_configured() {
  "${compose[@]}" up --detach --wait --wait-timeout "$start_wait" --no-build
  quiet "${demo[@]}" rm --stop --force primary
}

arrived() { web "$primary/_primary/requests" | grep -q "\"fallback_id\": \"$1\""; }

story() {
  local answer id
  say "1. The primary is down."
  ask "-X PUT -d down $primary/_primary/mode" -X PUT -d down "$primary/_primary/mode"
  if ask "$primary/orders" "$primary/orders" 2>&1; then die "the primary answers, although it was told to be down"; fi
  draining=yes
  quiet env FALLBACK_TARGET_URL=http://primary:8090 FALLBACK_DRAIN_SCHEDULE=2s \
    "${demo[@]}" up --detach --no-deps --no-build drain || die "the drain does not start"

  say "2. A request is accepted all the same: 202, when the queue has it on disk."
  answer=$(ask "-i -d '{\"order\":42}' '$door$target'" -i -d '{"order":42}' "$door$target" 2>&1 | tr -d '\r') || true
  printf '%s\n' "$answer"
  id=$(sed -n 's/^{"id":"\([^"]*\)".*/\1/p' <<<"$answer")
  [[ $answer == *$'\nHTTP/1.1 202 '* && -n $id ]] || die "the request was not accepted"

  say "3. It waits on the queue."
  wait_for "$seen_wait" main_waits || die "the request is not seen on the queue (waited $seen_wait s)"
  show_queues

  say "4. The primary is up again, and the drain delivers what waits."
  ask "-X PUT -d up $primary/_primary/mode" -X PUT -d up "$primary/_primary/mode"
  wait_for "$delivered_wait" arrived "$id" ||
    die "the request was not delivered (waited $delivered_wait s): \`${compose[*]} logs drain\` may say why"
  ask "$primary/_primary/requests" "$primary/_primary/requests"
  wait_for "$seen_wait" main_is_empty || die "the request was delivered, and the queue is not empty (waited $seen_wait s)"
  show_queues
}

tell_unknown
check_passwords
config=$("${compose[@]}" config)
why=''
if [[ -n $(setting FALLBACK_TARGET_URL) ]]; then
  why="FALLBACK_TARGET_URL is set: what waits goes to your API, so no request is sent from here."
elif own_passwords; then
  why="The passwords are your own, so what comes may be real: nothing is sent, and the drain idles until FALLBACK_TARGET_URL is set."
elif [[ -n $(setting FALLBACK_TOKENS)$(setting FALLBACK_WEBHOOK_SECRETS) ]]; then
  why="The door asks for a token or a signature, which the story does not have: no request is sent from here."
else
  start_demo
  waiting=$(others) || die "cannot see what waits on the queue"
  if [[ -n $waiting ]]; then
    why="Requests wait from before, and must not end at a primary for trying things out: nothing is sent or delivered."
  fi
fi
if [[ -n $why ]]; then start_configured; fi

prefix=$(setting FALLBACK_PATH_PREFIX)
prefix=${prefix:-/fallback}
door=http://$("${compose[@]}" port server 8080)${prefix%/}
management=http://$("${compose[@]}" port rabbitmq 15672)
if [[ -n $why ]]; then
  say "$why"
  show_queues
else
  primary=http://$("${demo[@]}" port primary 8090)
  story
fi

say "Send requests to   $door"
if [[ -n ${primary:-} ]]; then
  echo "What arrived       $primary/_primary/requests"
  echo "Tell the primary   curl -X PUT -d down $primary/_primary/mode    (or up, slow, limited, picky)"
fi
echo "Look at queues     $management  (user admin$(own_passwords || echo ', password demonstration-admin'))"
if [[ -z $(setting FALLBACK_TARGET_URL) ]]; then
  echo "Your own API       FALLBACK_TARGET_URL=https://api.example.com make up$given"
fi
echo "Stop               make down$given    (make down$given VOLUMES=1 forgets what is queued, too)"
