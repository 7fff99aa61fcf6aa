<?php
/**
 * Runs what is due of WordPress' scheduled work, once, and says what that was. Nothing before the setup is complete.
 */

declare(strict_types=1);

namespace Store;

require __DIR__ . '/journal.php';
require __DIR__ . '/database.php';
require __DIR__ . '/revision.php';

elapsed();
pcntl_async_signals(true);
foreach ([SIGTERM, SIGINT] as $signal) {
    pcntl_signal($signal, static fn () => exit(ExitCode::Signalled->value));
}

try {
    $connection = connect();
    $lacking = lacking($connection);
    $connection->close();
} catch (\mysqli_sql_exception $error) {
    fail(ExitCode::DatabaseAway, 'no database: ' . $error->getMessage(), 'the next run tries again');
}
if ($lacking !== '') {
    say("nothing to do yet: $lacking");
    exit(ExitCode::Done->value);
}

define('DOING_CRON', true);
require '/srv/wp/wp-load.php';

$count = 0;
foreach (wp_get_ready_cron_jobs() as $due => $hooks) {
    foreach ($hooks as $hook => $events) {
        foreach ($events as $event) {
            // Moved on before it runs, so that one which ends the process is not the first of every run to come.
            if ($event['schedule']) {
                wp_reschedule_event($due, $event['schedule'], $hook, $event['args']);
            }
            wp_unschedule_event($due, $hook, $event['args']);
            do_action_ref_array($hook, $event['args']);
            $count++;
        }
    }
}
say("ran $count events");
exit(ExitCode::Done->value);
