<?php
/**
 * What a person reads in the pod's log: one line for each step, with the seconds since the process began.
 */

declare(strict_types=1);

namespace Store;

/** How a command ends; anything but DONE fails the Job, and the log's last line says why. */
enum ExitCode: int
{
    case Done = 0;
    /** The environment lacks something. */
    case Usage = 2;
    /** The database was set up by a newer image; nothing was changed. */
    case DatabaseIsNewer = 65;
    /** The database did not answer in time. */
    case DatabaseAway = 69;
    case StepFailed = 70;
    /** Another setup of this store is at work and did not end in time. */
    case Busy = 75;
    case PasswordRefused = 77;
    case Signalled = 143;
}

const STEP_DONE = 10;
/** Of a setup's step, success: WordPress ends a process with 0 when it has shown an error page. */

/** @return float Seconds since the command began, in the steps' own processes as well. */
function elapsed(): float
{
    static $began = null;
    $began ??= (float) (getenv('STORE_BEGAN') ?: microtime(true));
    return microtime(true) - $began;
}

function say(string $text): void
{
    fwrite(STDOUT, sprintf("[store] %.1f s %s\n", elapsed(), one_line($text)));
}

/** Ends with the cause and the next step as the log's last line. */
function fail(ExitCode $code, string $cause, string $next): never
{
    fwrite(STDOUT, sprintf("[store] %.1f s failed: %s; %s\n", elapsed(), one_line($cause), $next));
    exit($code->value);
}

/** Somebody else's words, cut and without line ends. */
function one_line(string $text): string
{
    $line = trim((string) preg_replace('/\s+/', ' ', strip_tags($text)));
    return strlen($line) > 1000 ? substr($line, 0, 1000) . '…' : $line;
}
