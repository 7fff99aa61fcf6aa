<?php
/**
 * Whether the shop can be shown: the database answers and is set up for exactly this revision.
 *
 * A probe by the pod's address waits a moment for the answer to become yes, so that the shop opens when the setup ends
 * and not at the next probe. Yes opens the shop (see wp-config.php); a database that is away closes nothing.
 */

declare(strict_types=1);

namespace Store;

require __DIR__ . '/database.php';
require __DIR__ . '/revision.php';

const WAIT_SECONDS = 2.5;
const OPEN = '/run/apache2/open';

$until = microtime(true) + (isset($_SERVER['STORE_PROBE']) ? WAIT_SECONDS : 0);
$connection = null;
do {
    try {
        $connection ??= connect();
        $lacking = lacking($connection);
        $is_known = true;
    } catch (\mysqli_sql_exception $error) {
        $connection = null;
        $lacking = 'the database does not answer';
        $is_known = false;
    }
    if ($lacking === '') {
        break;
    }
    usleep(50_000);
} while (microtime(true) < $until);

header('Content-Type: text/plain; charset=utf-8');
header('Cache-Control: no-store');
if ($lacking === '') {
    is_file(OPEN) || touch(OPEN);
    exit("ready\n");
}
if ($is_known) {
    @unlink(OPEN);
}
http_response_code(503);
exit("not ready: $lacking\n");
