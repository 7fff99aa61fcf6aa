<?php
/**
 * What is answered while the database is away, in place of WordPress' own page: that one says 500, as a broken shop does.
 */

declare(strict_types=1);

if (PHP_SAPI === 'cli') {
    // A setup's step, or scheduled work: the last line is the cause that its log ends with.
    fwrite(STDERR, 'the database is away: ' . (mysqli_connect_error() ?? 'no connection') . "\n");
    exit(1);
}
http_response_code(503);
header('Retry-After: 5');
header('Content-Type: text/plain; charset=utf-8');
header('Cache-Control: no-store');
exit("This shop's database does not answer. Try again in a moment.\n");
