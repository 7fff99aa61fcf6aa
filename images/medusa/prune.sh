#!/bin/sh
# Takes from node_modules what a running store never reads (680 MB become 275 MB).
# Do not add @rushstack, @babel, vite or rollup: Medusa's command line loads them.
set -eu
cd node_modules
find . -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' -o -name '*.md' -o -name '*.flow' \) -delete
rm -rf typescript @medusajs/dashboard @medusajs/icons react-aria react-stately @ariakit @react-aria @react-stately \
  @react-types @esbuild figlet/fonts figlet/importable-fonts motion framer-motion
for dist in @medusajs/*/dist; do
  mkdir -p "$dist/migrations"
done
