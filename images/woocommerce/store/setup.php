<?php
/**
 * Sets the database up for this image and this revision: core, plugin, settings, demo products, and the record last.
 *
 * Each step is a process of its own, because WordPress decides while it loads what is installed and active. Each looks
 * before it acts, so that a setup which was killed anywhere is simply run again. What a merchant has changed since stays.
 */

declare(strict_types=1);

namespace Store;

require __DIR__ . '/journal.php';
require __DIR__ . '/database.php';

const STEPS = ['install', 'activate', 'configure'];
const STEP_SECONDS = 280;

elapsed();
putenv('STORE_BEGAN=' . sprintf('%.3F', microtime(true)));

$child = null;
pcntl_async_signals(true);
foreach ([SIGTERM, SIGINT] as $signal) {
    // Process 1 of a container ignores a signal that it has no handler for.
    pcntl_signal($signal, static function (int $signal) use (&$child): never {
        if (is_resource($child)) {
            proc_terminate($child, SIGKILL);
        }
        fail(ExitCode::Signalled, "ended by signal $signal", 'a new setup begins where this one was');
    });
}

if (trim((string) file_get_contents(__DIR__ . '/flavour')) !== 'official') {
    say('WARNING: this image holds a stand-in for WooCommerce, which shows products and sells nothing; '
        . 'build the image from the releases for a real shop');
}
$connection = connect_when_it_answers();
take_lock($connection);
foreach (STEPS as $step) {
    run_step($step, $child);
}
say('setup ' . getenv('SETUP_REVISION') . ' recorded');
exit(ExitCode::Done->value);

/**
 * Runs one step to its end, with its output as ours.
 *
 * @param resource|null $child Where the running process is noted.
 */
function run_step(string $step, &$child): void
{
    $command = ['php', __DIR__ . "/steps/$step.php"];
    $child = proc_open($command, [['file', '/dev/null', 'r'], STDOUT, ['pipe', 'w']], $pipes);
    if (!is_resource($child)) {
        fail(ExitCode::StepFailed, "$step: no process could be started", 'give the setup more memory');
    }
    stream_set_blocking($pipes[2], false);
    $said = '';
    $until = elapsed() + STEP_SECONDS;
    do {
        $read = [$pipes[2]];
        $write = $except = null;
        // Interrupted by a signal it warns and returns false; the handler has ended the process by then.
        $ready = @stream_select($read, $write, $except, 0, 200_000);
        $text = $ready ? (string) fread($pipes[2], 65536) : '';
        if ($text !== '') {
            fwrite(STDERR, $text);
            $said = substr($said . $text, -4000);
        }
        if (elapsed() > $until) {
            proc_terminate($child, SIGKILL);
            fail(ExitCode::StepFailed, "$step: not done after " . STEP_SECONDS . ' s', 'look at the lines above');
        }
    } while (!feof($pipes[2]));
    fclose($pipes[2]);
    $code = proc_close($child);
    $child = null;
    if ($code === STEP_DONE) {
        return;
    }
    if ($code === ExitCode::DatabaseIsNewer->value) {
        $next = 'use the image that set it up or a newer one, or restore the backup of before';
        fail(ExitCode::DatabaseIsNewer, 'the database was set up by a newer image; nothing was changed', $next);
    }
    $lines = array_values(array_filter(explode("\n", trim($said))));
    $cause = $lines === [] ? 'it said nothing' : end($lines);
    fail(ExitCode::StepFailed, "$step ended with $code: $cause", 'mend what the lines above name, then try again');
}
