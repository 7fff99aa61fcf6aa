#!/bin/sh
# Makes the cluster on the first start, then becomes the server.
set -eu

case "${1:-postgres}" in
  -*) set -- postgres "$@" ;;
esac
if [ "${1:-postgres}" != postgres ]; then
  exec "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ -z "${POSTGRES_PASSWORD:-}" ]; then
    echo "POSTGRES_PASSWORD is not set: a server without a password would be open to its whole network" >&2
    exit 1
  fi
  user="${POSTGRES_USER:-postgres}"
  database="${POSTGRES_DB:-$user}"
  # Made beside its place and renamed when complete: a start that was killed half-way begins anew.
  unfinished="$PGDATA.unfinished"
  rm -rf "$unfinished"
  (umask 077; printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/.password)
  initdb --pgdata="$unfinished" --username="$user" --pwfile=/tmp/.password --encoding=UTF8 --locale=C.UTF-8 \
    --auth-local=trust --auth-host=scram-sha-256 --no-sync
  rm -f /tmp/.password
  # Debian's server listens on the loopback alone unless told.
  echo "listen_addresses = '*'" >> "$unfinished/postgresql.conf"
  echo "host all all all scram-sha-256" >> "$unfinished/pg_hba.conf"
  if [ "$database" != postgres ]; then
    quoted=$(printf '%s' "$database" | sed 's/"/""/g')
    printf 'CREATE DATABASE "%s";\n' "$quoted" | postgres --single -j -D "$unfinished" postgres
  fi
  if [ -e "$PGDATA" ] && ! rmdir "$PGDATA"; then
    echo "PGDATA=$PGDATA holds something else or is a mount point: use an empty folder below the volume" >&2
    exit 1
  fi
  mv "$unfinished" "$PGDATA"
fi

exec "$@"
