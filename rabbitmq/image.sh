#!/usr/bin/env bash
# Makes sure that the broker's image is there: image.sh [4.3|4.0|3.10]
#
# An image that is there stays as it is. Else it is pulled; where no registry is in reach it is made from Debian's packages,
# under the same name and with the same places, ports and user id as the official one, so that nothing else has to know.
# `docker image inspect -f '{{index .Config.Labels "fallback.made-from"}}' IMAGE` tells the two apart.
set -euo pipefail

readonly version=${1:-4.3} image=rabbitmq:${1:-4.3}-management
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here host=$here/../.ci/host.sh
readonly registry_wait=30 pull_wait=300 make_wait=900

say() { echo "rabbitmq: $*"; }
die() { echo "rabbitmq: $*" >&2; exit 1; }

# The Debian release that has this version.
case $version in
  4.3) suite=forky ;;
  4.0) suite=trixie ;;
  3.10) suite=bookworm ;;
  *) die "no such version: $version (there are 4.3, 4.0 and 3.10)" ;;
esac

# macOS has neither timeout nor flock; it can pull, without a bound of ours.
command -v timeout >/dev/null || timeout() {
  while [[ $1 == -* ]]; do if [[ $1 == -k ]]; then shift; fi; shift; done
  shift
  "$@"
}

# Two makes at once must not both make it; the script is its own lock.
lock() {
  command -v flock >/dev/null || return 0
  exec 8<"${BASH_SOURCE[0]}"
  flock -w $((pull_wait + make_wait)) 8 || die "another image.sh has been at work for too long: giving up"
}

child='' work=''
clean_up() {
  if [[ -n $child ]]; then kill "$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true; fi
  if [[ -n $work ]]; then rm -rf --one-file-system "$work"; fi
}

present() { docker image inspect "$image" >/dev/null 2>&1; }

# In the background and waited for, so that an interrupt is not held up and clean_up can end it.
run_in_background() { timeout -k 30 "$@" >"$work/log" 2>&1 </dev/null & child=$!; }
wait_child() { local code=0; wait "$child" || code=$?; child=''; return "$code"; }

# A network may swallow packets instead of refusing them: the registry's first word must come soon, the rest may take longer.
pull() {
  local until=$((SECONDS + registry_wait))
  run_in_background "$pull_wait" docker pull "$image"
  while kill -0 "$child" 2>/dev/null && ! grep -qs 'Pulling from' "$work/log"; do
    if ((SECONDS >= until)); then
      kill "$child" 2>/dev/null || true
      wait_child || true
      echo "no answer from the registry in $registry_wait s" >>"$work/log"
      return 1
    fi
    sleep 0.2
  done
  wait_child
}

may_make() {
  local why="$image could not be pulled ($1)"
  command -v apt-get >/dev/null || die "$why and this host is not Debian: pull or load it by hand"
  [[ $(id -u) == 0 ]] || die "$why and only root can make it from Debian's packages: run $0 $version as root"
}

need_mmdebstrap() {
  if command -v mmdebstrap >/dev/null && [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]]; then return; fi
  "$host" install mmdebstrap debian-archive-keyring
}

# How this host's apt gets out (a proxy, say) holds for the packages of the image too.
apt_options() {
  { apt-config dump 2>/dev/null || true; } | grep -E '^Acquire::(https?::|ForceIPv|Retries)' || true
  # Testing's Release file runs out when a mirror lags; what it lists is still signed.
  echo 'Acquire::Check-Valid-Until "false";'
}

# The official image's user id, so that a volume may go from one to the other. Before the packages, which keep a user they find.
# shellcheck disable=SC2016  # $1 is the hook's
readonly add_user='
  echo "rabbitmq:x:999:999:RabbitMQ:/var/lib/rabbitmq:/usr/sbin/nologin" >>"$1/etc/passwd"
  echo "rabbitmq:!:19000::::::" >>"$1/etc/shadow"
  echo "rabbitmq:x:999:" >>"$1/etc/group"
  echo "rabbitmq:!::" >>"$1/etc/gshadow"'

# The cookie is a secret: each data directory gets its own at first start instead of the one the package made.
# shellcheck disable=SC2016
readonly configure='set -e; cd "$1"
  rm -rf var/lib/rabbitmq/.erlang.cookie var/lib/rabbitmq/mnesia
  mkdir -p etc/rabbitmq/conf.d
  echo "[rabbitmq_management,rabbitmq_prometheus]." >etc/rabbitmq/enabled_plugins
  printf "%s\n" "loopback_users.guest = false" "log.console = true" >etc/rabbitmq/conf.d/10-defaults.conf
  chown -R 999:999 etc/rabbitmq var/lib/rabbitmq var/log/rabbitmq
  chroot . dpkg-query -W -f "\${Version}" rabbitmq-server >"$FALLBACK_WORK/version"'

make_root() {
  local exclude=() path
  for path in doc info lintian locale man; do exclude+=(--dpkgopt="path-exclude=/usr/share/$path/*"); done
  apt_options >"$work/apt.conf"
  FALLBACK_WORK=$work run_in_background "$make_wait" mmdebstrap --quiet --variant=essential "${exclude[@]}" \
    --aptopt="$work/apt.conf" --include=rabbitmq-server,procps,ca-certificates \
    --essential-hook="$add_user" --customize-hook="$configure" "$suite" "$work/root.tar" "$1"
  wait_child
}

# RUNNING_UNDER_SYSTEMD is how the official image, too, makes the start script exec the server, which then gets SIGTERM itself.
import_root() {
  local change changes=()
  for change in 'USER rabbitmq' 'CMD ["rabbitmq-server"]' 'VOLUME /var/lib/rabbitmq' 'EXPOSE 5672 15672 15692' \
    'ENV PATH=/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    'ENV HOME=/var/lib/rabbitmq' 'ENV LANG=C.UTF-8' 'ENV LC_ALL=C.UTF-8' 'ENV RABBITMQ_LOGS=-' 'ENV RUNNING_UNDER_SYSTEMD=true' \
    "LABEL fallback.made-from=\"debian $suite\" fallback.rabbitmq-version=\"$1\""; do
    changes+=(--change "$change")
  done
  run_in_background "$pull_wait" docker import "${changes[@]}" "$work/root.tar" "$image"
  wait_child
}

make_image() {
  local mirror packaged
  may_make "$1"
  mirror=$("$host" mirror) || die "$image could not be pulled ($1) and this host is not Debian: pull or load it by hand"
  say "$image could not be pulled ($1): making it from the packages of Debian $suite, about a minute"
  need_mmdebstrap || die "mmdebstrap is needed to make $image: install it"
  make_root "$mirror" || { tail -n 15 "$work/log" >&2; die "mmdebstrap failed: $image is not there"; }
  packaged=$(<"$work/version")
  packaged=${packaged%-*}
  if [[ $packaged != "$version".* ]]; then say "mind that Debian $suite has RabbitMQ $packaged by now, not $version"; fi
  import_root "$packaged" || { tail -n 5 "$work/log" >&2; die "docker import failed: $image is not there"; }
}

main() {
  local why
  if present; then return; fi
  docker version >/dev/null 2>&1 || die "no Docker engine answers: \`.ci/host.sh docker\` first"
  lock
  if present; then return; fi
  # Not /tmp, which may be small and in memory: this takes half a gigabyte for a minute. Open to apt's own user.
  export TMPDIR=/var/tmp
  trap clean_up EXIT
  work=$(mktemp -d "$TMPDIR/fallback-image.XXXXXX")
  chmod 755 "$work"
  say "$image is not here: pulling it"
  if pull; then return; fi
  why=$(tail -n 1 "$work/log")
  make_image "${why##*: }"
}

main
