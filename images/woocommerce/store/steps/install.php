<?php
/**
 * WordPress' own tables, options and administrator; in a database of an older version, its migration.
 */

declare(strict_types=1);

namespace Store;

require __DIR__ . '/begin.php';
require __DIR__ . '/quiet.php';

const INSTALLED = 'store_core_installed';
/** Written last: an installation that was killed looks installed to WordPress itself. */

define('WP_INSTALLING', true);
// As if a structure was set: WordPress would else ask itself over HTTP whether pretty links work.
$GLOBALS['wp_filter']['pre_option_permalink_structure'] = [
    10 => [['function' => static fn (): string => '/%postname%/', 'accepted_args' => 1]],
];
require_once dirname(__DIR__) . '/database.php';
drop_unfinished(connect());
require '/srv/wp/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';

$code_version = (int) $wp_db_version;
// Not is_blog_installed(): it gives up where only some of the tables were made before an installation was killed.
if (database()->get_var("SHOW TABLES LIKE 'wp_options'") !== null && get_option(INSTALLED)) {
    $version = (int) get_option('db_version');
    if ($version > $code_version) {
        // WordPress' own upgrade would write the lower number and change nothing back.
        exit(ExitCode::DatabaseIsNewer->value);
    }
    if ($version < $code_version) {
        wp_upgrade();
        wp_cache_flush();
        say("WordPress' database migrated from $version to $code_version");
    }
} else {
    install();
    say("WordPress $wp_version installed");
}
if ((int) get_option('db_version') !== $code_version) {
    throw new \RuntimeException("the database has not become version $code_version: " . database()->last_error);
}
done();

/**
 * Removes the empty tables of an installation that was killed before it had made the one of the options: WordPress gives
 * up where it finds such. Tables that hold anything stay, and WordPress says so.
 */
function drop_unfinished(\mysqli $connection): void
{
    $tables = array_column($connection->query('SHOW TABLES')->fetch_all(), 0);
    $is_empty = static fn (string $table): bool => $connection->query("SELECT 1 FROM `$table` LIMIT 1")->num_rows === 0;
    if (in_array('wp_options', $tables, true) || count(array_filter($tables, $is_empty)) !== count($tables)) {
        return;
    }
    foreach ($tables as $table) {
        $connection->query("DROP TABLE IF EXISTS `$table`");
    }
}

function install(): void
{
    // Encoded before WordPress encodes it once more, which leaves an entity as it is: shown is what was given.
    $title = htmlspecialchars((string) getenv('TITLE'), ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
    $user = (string) getenv('ADMIN_USER');
    $password = (string) getenv('ADMIN_PASSWORD');
    wp_install($title, $user, (string) getenv('ADMIN_EMAIL'), true, '', wp_slash($password));
    $there = database()->get_col('SHOW TABLES');
    $missing = array_diff(database()->tables('all'), $there);
    if ($missing !== []) {
        throw new \RuntimeException('WordPress made no ' . implode(', ', $missing) . ': ' . database()->last_error);
    }
    $administrator = no_error(get_user_by('login', $user), 'the administrator');
    if (!wp_check_password($password, $administrator->user_pass, $administrator->ID)) {
        // Of an installation that was killed before, with another password.
        wp_set_password($password, $administrator->ID);
    }
    update_option('store_title', $title, false);
    update_option(INSTALLED, gmdate('c'), true);
}
