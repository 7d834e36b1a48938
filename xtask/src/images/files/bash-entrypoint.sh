#!/usr/bin/env bash
# Without a command, or with options only: bash itself gets them.
set -Eeuo pipefail
case "${1-}" in
'' | -*) exec bash "$@" ;;
*) exec "$@" ;;
esac
