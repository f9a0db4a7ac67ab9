#!/usr/bin/env bash
# What a host needs before anything of this project can run on it. Looks first, changes only what is missing, and says so in
# one line; says nothing when nothing is missing.
#
#   host.sh docker           a Docker client and an engine that answers
#   host.sh compose          `docker compose`, version 2 or later
#   host.sh install PKG...   Debian packages (for the project's other scripts)
#   host.sh mirror           prints the Debian mirror that this machine's apt uses (likewise)
set -euo pipefail

readonly engine_wait=60 engine_log=/var/log/fallback-dockerd.log
export DEBIAN_FRONTEND=noninteractive
unset -v work
trap 'if [[ -n ${work:-} ]]; then rm -rf "$work"; fi' EXIT

say() { echo "host: $*"; }
die() { echo "host: $*" >&2; exit 1; }

# macOS has no timeout: there, where we only look, waits are the commands' own.
command -v timeout >/dev/null || timeout() {
  while [[ $1 == -* ]]; do if [[ $1 == -k ]]; then shift; fi; shift; done
  shift
  "$@"
}

# Two makes at once must not both install; the script is its own lock, so no file is left anywhere.
lock() {
  command -v flock >/dev/null || return 0
  exec 9<"${BASH_SOURCE[0]}"
  flock -w 900 9 || die "another host.sh has been at work for 15 minutes: giving up"
}

make_work() { work=$(mktemp -d "${TMPDIR:-/tmp}/fallback-host.XXXXXX"); }

# quiet SECONDS COMMAND...: what a command says is of interest only when it fails.
quiet() {
  local limit=$1; shift
  if timeout --foreground -k 10 "$limit" "$@" >"$work/log" 2>&1 </dev/null; then return 0; fi
  tail -n 8 "$work/log" >&2
  return 1
}

# ---- apt

can_install() { command -v apt-get >/dev/null && [[ $(id -u) == 0 ]]; }

# may_install PACKAGES WHY: ends the script where we cannot install, with the thing to do.
may_install() {
  command -v apt-get >/dev/null || die "$2, and no apt to install it with: install it by hand and try again"
  [[ $(id -u) == 0 ]] || die "$2, and only root may install: run \`apt-get install $1\` as root and try again"
}

# candidate PACKAGE: the version that apt would install, or nothing.
candidate() { { apt-cache policy "$1" 2>/dev/null || true; } | sed -n 's/^  Candidate: //p' | grep -vFx '(none)' || true; }

# A third-party source that is broken or hangs must not stop us: whether the lists serve shows when they are used.
apt_update() {
  timeout --foreground -k 10 150 apt-get update -qq \
    -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 >/dev/null 2>&1 </dev/null || true
}

# --no-remove: nothing that is on the host may go because of us.
apt_get_install() {
  quiet 600 apt-get install -y -qq --no-install-recommends --no-remove \
    -o Acquire::Retries=2 -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"
}

# The lists are fetched only if they do not know a package, or know one that the mirror has replaced since.
apt_install() {
  local package
  for package; do
    if [[ -z $(candidate "$package") ]]; then apt_update; break; fi
  done
  apt_get_install "$@" 2>/dev/null || { apt_update; apt_get_install "$@"; }
}

install_packages() {
  may_install "$*" "needed: $*"
  lock; make_work
  apt_install "$@" || die "apt could not install $*"
}

# apt itself reads both formats of its sources, and the Release files, which are signed, tell Debian's own archive from
# third-party ones: suites with a dash are updates, security and backports.
debian_archives() {
  # shellcheck disable=SC2016  # these are apt's own variables
  apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    sed -n 's/^Debian|Debian|main|[^-|]*|//p' | grep -v '^cdrom:' | sort -u || true
}

# Debian's cloud images name a file of mirrors instead of a mirror.
resolve_mirror() {
  local uri=${1%/}
  case $uri in
    mirror+file:*) sed -n 's/^\([a-z]*:[^[:space:]]*\).*/\1/p' "/${uri#mirror+file:*/}" | head -n 1 ;;
    *) echo "$uri" ;;
  esac
}

mirror() {
  local found
  command -v apt-get >/dev/null || return 1
  found=$(debian_archives | head -n 1)
  if [[ -z $found ]] && can_install; then apt_update; found=$(debian_archives | head -n 1); fi
  found=$(resolve_mirror "$found")
  [[ -n $found ]] && echo "${found%/}"
}

# ---- the engine

answers() { timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# A host, or a context, that the user chose is the user's to start.
chosen_by_user() {
  [[ -n ${DOCKER_HOST:-} || -n ${DOCKER_CONTEXT:-} ]] ||
    [[ $(docker context inspect --format '{{.Name}}' 2>/dev/null || echo default) != default ]]
}

# Without procps there is no pgrep.
dockerd_runs() { grep -qsx dockerd /proc/[0-9]*/comm; }

# wait_answer UNTIL: until the engine answers, or the time is over, or there is no dockerd (any more).
wait_answer() {
  local missing=0
  while ((SECONDS < $1)); do
    if answers; then return 0; fi
    if dockerd_runs; then missing=0; elif ((++missing > 4)); then return 1; fi
    sleep 0.5
  done
  return 1
}

# In a container whose own root is an overlay there can be no further one below it.
overlay_works() {
  mkdir -p /var/lib/docker "$work"/merged
  local dir; dir=$(mktemp -d /var/lib/docker/fallback-probe.XXXXXX)
  mkdir "$dir"/{lower,upper,work}
  local code=0
  mount -t overlay overlay -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" "$work/merged" 2>/dev/null || code=1
  if ((code == 0)); then umount "$work/merged"; fi
  rm -rf "$dir"
  return "$code"
}

engine_packages() {
  local packages=(docker.io)
  # From Debian 13 on the client is a package of its own.
  if ! command -v docker >/dev/null && [[ -n $(candidate docker-cli) ]]; then packages+=(docker-cli); fi
  # With AppArmor in the kernel the engine starts no container unless the parser is there.
  if [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) == Y* ]] && ! command -v apparmor_parser >/dev/null; then
    packages+=(apparmor)
  fi
  # What is left without an overlay is vfs, which copies whole images.
  if [[ -c /dev/fuse ]] && ! overlay_works; then packages+=(fuse-overlayfs); fi
  echo "${packages[*]}"
}

install_engine() {
  local packages why="this host has no Docker engine"
  command -v docker >/dev/null || why="this host has no Docker client"
  may_install docker.io "$why"
  say "$why: installing Debian's (docker.io) with apt"
  if [[ -z $(candidate docker.io) ]]; then apt_update; fi
  packages=$(engine_packages)
  # shellcheck disable=SC2086  # words on purpose
  apt_install $packages || die "apt could not install $packages"
}

# The host's own way of starting services, where it has one that works (a container has not, as a rule).
start_service() {
  if [[ -d /run/systemd/system ]]; then timeout 30 systemctl start docker
  elif [[ -x /etc/init.d/docker ]] && command -v service >/dev/null; then timeout 20 service docker start
  else return 1; fi >/dev/null 2>&1 </dev/null 9<&-
}

# In a session of its own, so that it outlives the make that called us; without our lock. The pid file of a dockerd that is
# gone, whose number another process may have by now, would keep a new one from starting.
start_dockerd() {
  rm -f /var/run/docker.pid
  setsid nohup dockerd "$@" >>"$engine_log" 2>&1 </dev/null 9<&- &
}

start_engine() {
  local until=$((SECONDS + engine_wait))
  if dockerd_runs || start_service; then
    if wait_answer "$until"; then return 0; fi
  fi
  # As the host is set up; if that is refused, with the one way of storing images that works on every file system.
  if ! dockerd_runs; then
    start_dockerd
    if wait_answer "$until"; then return 0; fi
  fi
  if ! dockerd_runs; then
    start_dockerd --storage-driver=vfs
    if wait_answer "$until"; then return 0; fi
  fi
  return 1
}

ensure_docker() {
  local why
  if ! command -v docker >/dev/null; then
    if [[ -n ${DOCKER_HOST:-} ]]; then die "DOCKER_HOST is set, but there is no Docker client: install one"; fi
  else
    if answers; then return 0; fi
    why=$(timeout 10 docker version 2>&1 >/dev/null | tail -n 1) || true
    if chosen_by_user; then die "the Docker engine that DOCKER_HOST or the Docker context names does not answer: ${why:-no answer}"; fi
    if [[ $why == *"permission denied"* ]]; then
      die "this user may not talk to the Docker engine: run as root, or \`usermod -aG docker $(id -un)\` as root and log in again"
    fi
  fi
  lock; make_work
  if command -v docker >/dev/null && answers; then return 0; fi
  if ! command -v docker >/dev/null || ! command -v dockerd >/dev/null; then install_engine; fi
  if answers; then return 0; fi
  [[ $(id -u) == 0 ]] || die "the Docker engine is not running, and only root may start it: \`systemctl start docker\` as root"
  say "no Docker engine answers: starting it"
  start_engine || die "the Docker engine did not come up (waited at most $engine_wait s): see $engine_log, or \`journalctl -u docker\`"
}

# ---- Compose

have_compose() {
  local version
  version=$(timeout 10 docker compose version --short 2>/dev/null) || return 1
  version=${version#v}
  version=${version%%.*}
  [[ $version =~ ^[0-9]+$ ]] && ((version >= 2))
}

# The package of this host's own release that is Compose 2, or nothing. Debian up to 12 has only version 1 as docker-compose.
own_compose_package() {
  local package version
  for package in docker-compose-v2 docker-compose-plugin docker-compose; do
    version=$(candidate "$package")
    version=${version#*:}
    if [[ -n $version ]] && dpkg --compare-versions "$version" ge 2; then echo "$package"; return; fi
  done
}

# Debian 13's Compose is one Go binary that needs libc6 >= 2.34, which Debian 12 has. Only the package's file is taken,
# under apt directories of our own, so that nothing of Debian 13 gets into this host's package lists.
download_compose() {
  local archive=$1 keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  local apt=(apt-get -qq -o "Dir::State=$work/state" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache"
    -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o Acquire::Languages=none
    -o Acquire::Retries=2 -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=)
  mkdir -p "$work"/{state/lists,cache/archives,root}/partial
  : >"$work/status"
  echo "deb [signed-by=$keyring] $archive trixie main" >"$work/sources.list"
  quiet 180 "${apt[@]}" update || return 1
  (cd "$work" && quiet 180 "${apt[@]}" download docker-compose) || return 1
  dpkg-deb -x "$work"/docker-compose_*.deb "$work/root"
}

# The place in the package has moved between releases.
install_plugin() {
  local plugin=$1 binary
  binary=$(find "$work/root" -type f -name docker-compose -size +1000k | head -n 1)
  [[ -n $binary ]] || die "Debian's docker-compose package holds no binary of that name: install Docker Compose 2 by hand"
  "$binary" version >/dev/null 2>&1 || die "Debian 13's Docker Compose does not run on this host: install Docker Compose 2 by hand"
  mkdir -p "${plugin%/*}"
  # In two steps, so that there never is half a plugin; -n, so that one that is there stays.
  install -m 0755 "$binary" "$plugin.new"
  mv -n "$plugin.new" "$plugin"
  rm -f "$plugin.new"
}

ensure_compose() {
  local package archive plugin=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins/docker-compose why="this host has no Docker Compose 2"
  if have_compose; then return 0; fi
  command -v docker >/dev/null || die "no Docker client on this host: \`.ci/host.sh docker\` first"
  if [[ -e $plugin ]]; then die "$plugin is there but is no working Docker Compose 2: remove it or mend it"; fi
  command -v apt-get >/dev/null || may_install docker-compose-plugin "$why"
  lock; make_work
  if have_compose; then return 0; fi
  if can_install && [[ -z $(candidate docker-compose) ]]; then apt_update; fi
  package=$(own_compose_package)
  if [[ -n $package ]]; then
    may_install "$package" "$why"
    say "$why: installing $package with apt"
    apt_install "$package" || die "apt could not install $package"
  else
    archive=$(mirror) || die "$why, and apt knows neither a package of it nor Debian's archive: install docker-compose-plugin"
    say "$why and neither has its apt: taking the plugin from Debian 13's package into ${plugin%/*}"
    download_compose "$archive" || die "Debian 13's docker-compose could not be had from the Debian mirror: install docker-compose-plugin"
    install_plugin "$plugin"
  fi
  have_compose || die "\`docker compose version\` still does not say 2 or later: install docker-compose-plugin"
}

case ${1:-} in
  docker) ensure_docker ;;
  compose) ensure_compose ;;
  install) shift; (($#)) || die "install what?"; install_packages "$@" ;;
  mirror) mirror || die "apt on this host knows no Debian archive" ;;
  *) die "usage: host.sh docker|compose|install PACKAGE...|mirror" ;;
esac
