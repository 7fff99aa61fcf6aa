<?php
/**
 * WordPress' settings: all from the environment, none from a file that a person or the installer could write.
 */

declare(strict_types=1);

(static function (): void {
    $refuse = static function (string $cause): never {
        error_log("store: $cause");
        if (PHP_SAPI === 'cli') {
            exit(2);
        }
        http_response_code(500);
        exit("This shop is not configured.\n");
    };
    $needed = static function (string $name) use ($refuse): string {
        $value = getenv($name);
        return is_string($value) && $value !== '' ? $value : $refuse("$name is not set in the environment");
    };

    // Until readyz.php has seen this revision's setup complete there is no shop to show, and no wizard either.
    if (PHP_SAPI !== 'cli' && !is_file('/run/apache2/open')) {
        http_response_code(503);
        header('Retry-After: 5');
        header('Content-Type: text/plain; charset=utf-8');
        exit("This shop is being set up.\n");
    }

    define('DB_NAME', getenv('DB_NAME') ?: 'wordpress');
    define('DB_USER', getenv('DB_USER') ?: 'wordpress');
    define('DB_PASSWORD', $needed('MARIADB_PASSWORD'));
    define('DB_HOST', getenv('DB_HOST') ?: 'mariadb');
    define('DB_CHARSET', 'utf8mb4');
    define('DB_COLLATE', '');
    foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $purpose) {
        foreach (['KEY', 'SALT'] as $kind) {
            $value = $needed("{$purpose}_{$kind}");
            // WordPress would make up its own and keep them in the database, beside what they protect.
            if (strlen($value) < 32) {
                $refuse("{$purpose}_{$kind} is shorter than 32 characters");
            }
            define("{$purpose}_{$kind}", $value);
        }
    }

    $url = $needed('PUBLIC_URL');
    define('WP_HOME', $url);
    define('WP_SITEURL', $url);
    if (PHP_SAPI === 'cli') {
        // WordPress asks for these whether there is a request or not.
        $_SERVER['HTTP_HOST'] = preg_replace('#^https?://#', '', $url);
        $_SERVER['REQUEST_METHOD'] = 'GET';
        $_SERVER['REQUEST_URI'] = '/';
        $_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
        if (str_starts_with($url, 'https://')) {
            $_SERVER['HTTPS'] = 'on';
        }
    }
    define('FORCE_SSL_ADMIN', str_starts_with($url, 'https://'));
})();

$table_prefix = 'wp_';

// The image is the version: nothing is installed, edited or updated from within.
define('DISALLOW_FILE_MODS', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('WP_AUTO_UPDATE_CORE', false);
// Scheduled work has a pod of its own; a visitor's request would else make a request to itself.
define('DISABLE_WP_CRON', true);
define('WP_DEFAULT_THEME', trim((string) file_get_contents('/srv/store/theme')));
define('WP_POST_REVISIONS', 10);
define('WP_DEBUG', false);
if (PHP_SAPI === 'cli') {
    // An error is told as it is, and not as a page.
    define('WP_DISABLE_FATAL_ERROR_HANDLER', true);
}

if (!defined('ABSPATH')) {
    define('ABSPATH', __DIR__ . '/');
}
require_once ABSPATH . 'wp-settings.php';
