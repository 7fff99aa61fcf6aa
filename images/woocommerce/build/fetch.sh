#!/bin/sh
# usage: fetch.sh URL SHA256 FILE
# Fetches one release and refuses it unless it is the very one that was pinned.
set -eu
url=$1 wanted=$2 file=$3
if ! printf '%s' "$wanted" | grep -Eqx '[0-9a-f]{64}'; then
  echo "'$wanted' is no sha256: give the 64 hexadecimal digits of the release" >&2
  exit 2
fi
if ! curl --fail --silent --show-error --location --retry 3 --connect-timeout 20 --max-time 600 --output "$file" "$url"
then
  rm -f "$file"
  echo "$url cannot be fetched: correct the address, or build where it can be reached" >&2
  exit 1
fi
found=$(sha256sum "$file" | cut -d ' ' -f 1)
if [ "$found" != "$wanted" ]; then
  rm -f "$file"
  echo "$url has the sha256 $found, not $wanted: check where it came from before pinning it" >&2
  exit 1
fi
