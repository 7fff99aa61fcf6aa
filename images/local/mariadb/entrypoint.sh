#!/bin/sh
# Copies the prepared empty server on the first start, then becomes the server.
set -eu

case "${1:-mariadbd}" in
  -*) set -- mariadbd "$@" ;;
esac
if [ "${1:-mariadbd}" != mariadbd ]; then
  exec "$@"
fi
[ $# -gt 0 ] && shift

data="${MARIADB_DATADIR:-/var/lib/mysql}"
run="${MARIADB_RUN:-/run/mysqld}"

# One server on the data at a time: where a pod was removed by force, its server may still run beside the next one's.
# InnoDB locks its files too, but not the copy below. Held to the server's end, by the server itself.
exec 9>> "$data/.lock"
if ! flock --timeout 60 9; then
  echo "another server still has $data after 60 s: this pod's forerunner was removed by force and runs on" >&2
  exit 1
fi

for needed in MARIADB_ROOT_PASSWORD MARIADB_USER MARIADB_PASSWORD MARIADB_DATABASE; do
  eval "value=\${$needed:-}"
  if [ -z "$value" ]; then
    echo "$needed is not set: the server would be open, or of no use; give it in the environment" >&2
    exit 2
  fi
done

# A copy that a killed start left half-made begins anew: .unfinished goes last.
if [ ! -d "$data/mysql" ] || [ -e "$data/.unfinished" ]; then
  if [ ! -e "$data/.unfinished" ] && [ -n "$(ls -A "$data" | grep -vxF -e .lock -e lost+found)" ]; then
    echo "$data holds something that is no data of a server: use an empty volume" >&2
    exit 1
  fi
  touch "$data/.unfinished"
  find "$data" -mindepth 1 -maxdepth 1 ! -name .lock ! -name .unfinished ! -name lost+found -exec rm -rf {} +
  cp -R --sparse=always --reflink=auto "${MARIADB_EMPTY:-/usr/local/share/mariadb/empty}/." "$data/"
  rm "$data/.unfinished"
fi

# On every start, so that a password follows the one it is given. The account "mysql" has no rights and no password: it
# is for probes, whose refusals would fill the log. Read by the server before it lets anybody connect.
quoted() {
  printf '%s' "$1" | sed "s/\\\\/\\\\\\\\/g; s/'/''/g"
}
named() {
  printf '%s' "$1" | sed 's/`/``/g'
}
(
  umask 077
  user="'$(quoted "$MARIADB_USER")'@'%'"
  cat > "$run/accounts.sql" <<SQL
CREATE DATABASE IF NOT EXISTS \`$(named "$MARIADB_DATABASE")\` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE USER IF NOT EXISTS $user;
ALTER USER $user IDENTIFIED BY '$(quoted "$MARIADB_PASSWORD")';
GRANT ALL ON \`$(named "$MARIADB_DATABASE" | sed 's/[_%]/\\&/g')\`.* TO $user;
ALTER USER 'root'@'localhost' IDENTIFIED BY '$(quoted "$MARIADB_ROOT_PASSWORD")';
CREATE USER IF NOT EXISTS 'mysql'@'localhost' IDENTIFIED VIA unix_socket;
SQL
)
exec mariadbd --no-defaults --datadir="$data" --socket="$run/mysqld.sock" --pid-file="$run/mysqld.pid" \
  --init-file="$run/accounts.sql" "$@"
