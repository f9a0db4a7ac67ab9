#!/usr/bin/env bash
# Runs in the broker's container, before the broker: keeps published passwords from taking the place of private ones.
#
#   passwords.sh FALLBACK_DEFINITIONS COMMAND...
#
# At each start RabbitMQ imports its definitions, and with them the users' passwords, whatever they were before. So the volume
# keeps in mind that it has had private ones. With published ones given, nothing is run then: somebody has forgotten a word,
# and this says which.
set -euo pipefail

readonly given=/etc/rabbitmq/definitions.json published=/fallback/definitions.json mark=/var/lib/rabbitmq/private-definitions
readonly file=$1
shift

hashes() { grep -o '"password_hash": *"[^"]*"' "$1" | cut -d '"' -f 4; }

if hashes "$published" | grep -qFf - "$given"; then
  if [[ -e $mark ]]; then
    private=$(<"$mark")
    private=${private#./}
    private=${private%/*}/fallback.env
    echo "passwords: this broker has passwords of your own, and the published ones would take their place: nothing is started. \
Say which are yours: make up ENV_FILE=$private (or docker compose --env-file $private up, with --env-file .env before it if \
you have one). To give up what is queued, and begin anew: make down VOLUMES=1"
    exit 1
  fi
elif [[ ! -e $mark || $(<"$mark") != "$file" ]]; then
  printf '%s\n' "$file" >"$mark"
fi
exec "$@"
