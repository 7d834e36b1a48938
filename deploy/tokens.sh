#!/bin/sh
# Asks the first coordinator of deploy/compose.yaml for the tokens with which the others join, each good
# once and for an hour, and prints them as an environment file: deploy/tokens.sh > deploy/.env
set -eu
cd "$(dirname "$0")"
compose=${COMPOSE:-docker compose}
umask 077
first=$($compose ps -q c1)
[ -n "$first" ] || { echo "c1 does not run: $compose up -d c1" >&2; exit 1; }
tries=0
until docker exec "$first" /tenon cluster ready --server https://127.0.0.1:7070 \
        --ca /data/tls/ca.crt >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { echo "c1 is not ready: $compose logs c1" >&2; exit 1; }
    sleep 1
done
# The first token lies where only root in that container reads it.
admin=$(docker cp "$first:/data/admin.token" - | tar -xO)
token() {
    docker exec -e TENON_TOKEN="$admin" "$first" /tenon tokens join "$@" \
        --server https://127.0.0.1:7070
}
echo "TENON_TOKEN=$admin"
echo "TENON_IMAGE=${TENON_IMAGE:-tenon}"
for node in C2 C3; do
    echo "TENON_JOIN_$node=$(token --node)"
done
for agent in a1 a2 a3; do
    echo "TENON_JOIN_$(echo "$agent" | tr a-z A-Z)=$(token --agent "$agent")"
done
