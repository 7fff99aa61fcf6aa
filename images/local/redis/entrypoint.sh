#!/bin/sh
# Becomes the server; a bare flag or configuration file is for it.
set -eu
case "${1:-redis-server}" in
  -*|*.conf) set -- redis-server "$@" ;;
esac
exec "$@"
