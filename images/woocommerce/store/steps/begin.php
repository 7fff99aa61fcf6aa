<?php
/**
 * What every step begins with: WordPress loaded, and an error that is told as a line.
 */

declare(strict_types=1);

namespace Store;

require dirname(__DIR__) . '/journal.php';

set_exception_handler(static function (\Throwable $error): never {
    fwrite(STDERR, one_line($error->getMessage()) . ' (' . basename($error->getFile()) . ':' . $error->getLine() . ")\n");
    exit(ExitCode::StepFailed->value);
});

/** WordPress would show a page and end with 0. */
function die_plainly(mixed $message): never
{
    $text = $message instanceof \WP_Error ? $message->get_error_message() : (string) $message;
    fwrite(STDERR, one_line($text) . "\n");
    exit(ExitCode::StepFailed->value);
}

// Hooks that are noted before WordPress is there, it takes over.
$GLOBALS['wp_filter'] = [
    'wp_die_handler' => [10 => [['function' => static fn (): string => __NAMESPACE__ . '\die_plainly', 'accepted_args' => 1]]],
    // A setup writes to nobody.
    'pre_wp_mail' => [10 => [['function' => '__return_false', 'accepted_args' => 1]]],
];

/** @return \wpdb The database, after WordPress was loaded. */
function database(): \wpdb
{
    global $wpdb;
    // A failed statement would else only be printed.
    $wpdb->hide_errors();
    return $wpdb;
}

/** Throws what a statement that WordPress swallowed has failed with. */
function no_error(mixed $result, string $what): mixed
{
    if ($result instanceof \WP_Error) {
        throw new \RuntimeException("$what: " . $result->get_error_message());
    }
    if ($result === false || $result === 0) {
        throw new \RuntimeException("$what: " . (database()->last_error ?: 'refused'));
    }
    return $result;
}

function done(): never
{
    exit(STEP_DONE);
}
