<?php
/**
 * Whether the database is set up for exactly this image and revision. Without WordPress, which would need it to be.
 */

declare(strict_types=1);

namespace Store;

const NO_SUCH_TABLE = 1146;

/**
 * @return string What is lacking; empty when the setup of SETUP_REVISION is complete and the tables are of this version.
 */
function lacking(\mysqli $connection): string
{
    require '/srv/wp/wp-includes/version.php';
    try {
        $rows = $connection->query(
            "SELECT option_name, option_value FROM wp_options WHERE option_name IN ('db_version', 'store_setup_revision')"
        )->fetch_all();
    } catch (\mysqli_sql_exception $error) {
        if ($error->getCode() === NO_SUCH_TABLE) {
            return 'the database is empty';
        }
        throw $error;
    }
    $found = array_column($rows, 1, 0);
    if (($found['store_setup_revision'] ?? '') !== getenv('SETUP_REVISION')) {
        return 'the setup of this revision is not complete';
    }
    $version = $found['db_version'] ?? 'none';
    return $version === (string) $wp_db_version ? '' : "the database has version $version, the image $wp_db_version";
}
