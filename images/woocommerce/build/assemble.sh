#!/bin/sh
# usage: assemble.sh official|stand-in TARGET
# Puts WordPress, one theme and the plugin together as they are served, without anything that is not.
set -eu
flavour=$1 target=$2
theme=${THEME:-twentytwentythree}
mkdir -p "$target"

if [ "$flavour" = official ]; then
  for part in WORDPRESS WOOCOMMERCE; do
    eval "url=\$${part}_URL sha256=\$${part}_SHA256"
    sh fetch.sh "$url" "$sha256" "$part.zip"
    mkdir "$part"
    unzip -q "$part.zip" -d "$part"
  done
  cp -R WORDPRESS/wordpress/. "$target/"
  rm -rf "$target/wp-content/plugins"
  mkdir "$target/wp-content/plugins"
  cp -R WOOCOMMERCE/woocommerce "$target/wp-content/plugins/woocommerce"
else
  package=node_modules/@wp-playground/wordpress-builds
  unzip -q "$package/src/wordpress/wp-6.5.zip" -d "$target"
  # The package keeps scripts, styles and pictures apart from the code.
  cp -R "$package/public/wp-6.5/." "$target/"
  # Of this theme the later releases in the package have only that half; the first one has the other as well.
  unzip -q "$package/src/wordpress/wp-6.2.zip" 'wp-content/themes/twentytwentythree/*' -d older
  rm -rf "$target/wp-content/themes/twentytwentythree"
  cp -R "$package/public/wp-6.2/wp-content/themes/twentytwentythree" "$target/wp-content/themes/twentytwentythree"
  cp -R older/wp-content/themes/twentytwentythree/. "$target/wp-content/themes/twentytwentythree/"
  # The package's own database, settings and demonstrations go.
  rm -rf "$target/wp-content/database" "$target/wp-content/db.php" "$target/wp-content/mu-plugins" \
    "$target/wp-content/plugins" "$target/.default_theme" "$target/wordpress-remote-asset-paths"
  mkdir "$target/wp-content/plugins"
  cp -R stand-in/woocommerce "$target/wp-content/plugins/woocommerce"
fi

rm -f "$target/wp-config.php" "$target/wp-config-sample.php" "$target/readme.html" "$target/license.txt"
# The same theme in every image: a new version that lost it would show an empty front page.
find "$target/wp-content/themes" -mindepth 1 -maxdepth 1 -type d ! -name "$theme" -exec rm -rf {} +
for needed in wp-load.php wp-includes/version.php "wp-content/themes/$theme/theme.json" \
    wp-content/plugins/woocommerce/woocommerce.php; do
  if [ ! -f "$target/$needed" ]; then
    echo "the release has no $needed: give another, or another THEME" >&2
    exit 1
  fi
done
printf '%s\n' "$theme" > "$target/../theme"
find "$target" -type d -exec chmod 0755 {} +
find "$target" -type f -exec chmod 0644 {} +
