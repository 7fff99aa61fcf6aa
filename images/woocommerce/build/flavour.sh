#!/bin/sh
# Prints which flavour the build's arguments ask for: "official" with all four, "stand-in" with none. Anything between is
# a mistake that would otherwise be found in a running shop.
set -eu
given=
missing=
for name in WORDPRESS_URL WORDPRESS_SHA256 WOOCOMMERCE_URL WOOCOMMERCE_SHA256; do
  eval "value=\${$name:-}"
  if [ -n "$value" ]; then given="$given $name"; else missing="$missing $name"; fi
done
if [ -z "$given" ]; then
  echo stand-in
elif [ -z "$missing" ]; then
  echo official
else
  echo "given:$given; missing:$missing. Give all four build arguments, or none for the stand-in" >&2
  exit 2
fi
