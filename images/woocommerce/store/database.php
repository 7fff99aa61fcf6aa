<?php
/**
 * The database before WordPress is there: waiting for it, and the lock of the one setup at a time.
 */

declare(strict_types=1);

namespace Store;

const ANSWER_SECONDS = 240;
/** A new database is there in seconds; one that is moved to another node in a minute or two. */
const REFUSED_SECONDS = 5;
/** A password that was just changed may take a moment; a wrong one stays wrong. */
const CONNECT_SECONDS = 0.25;
const TELL_SECONDS = 5;
const LOCK_SECONDS = 60;
const RELEASE_SECONDS = 360;
/** The server ends a connection that rests for so long, and with it the lock of a setup whose node is gone. */

const ACCESS_DENIED = [1044, 1045];

/** Connects once, within about a second. */
function connect(): \mysqli
{
    mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
    $connection = mysqli_init();
    $connection->options(MYSQLI_OPT_CONNECT_TIMEOUT, 1);
    [$host, $port] = address();
    // A name that is not known is an exception and, beside it, a warning.
    @$connection->real_connect(
        $host,
        getenv('DB_USER') ?: 'wordpress',
        (string) getenv('MARIADB_PASSWORD'),
        getenv('DB_NAME') ?: 'wordpress',
        $port,
    );
    return $connection;
}

/**
 * Returns once something listens, or throws after a quarter of a second: where a pod has only just got its address, a
 * connection may hang, and the database's client knows no limit below one second.
 */
function await_port(): void
{
    [$host, $port] = address();
    $socket = @fsockopen($host, $port, $code, $cause, CONNECT_SECONDS);
    if ($socket === false) {
        throw new \mysqli_sql_exception($cause ?: 'the name is not known');
    }
    fclose($socket);
}

/** @return array{string, int} Host and port, as WordPress reads them: a port after a colon. */
function address(): array
{
    [$host, $port] = explode(':', (getenv('DB_HOST') ?: 'mariadb') . ':3306');
    return [$host, (int) $port];
}

/** Connects as soon as the database lets it; ends the command when it does not. */
function connect_when_it_answers(): \mysqli
{
    [$told, $tell_from] = ['', 0.0];
    $refused_since = null;
    while (true) {
        try {
            await_port();
            $connection = connect();
            say('the database answers');
            return $connection;
        } catch (\mysqli_sql_exception $error) {
            $cause = $error->getMessage();
            $refused_since = in_array($error->getCode(), ACCESS_DENIED, true) ? ($refused_since ?? elapsed()) : null;
        }
        // While it starts, the cause changes with every try.
        if ($cause !== $told && elapsed() >= $tell_from) {
            [$told, $tell_from] = [$cause, elapsed() + TELL_SECONDS];
            say("waiting for the database: $cause");
        }
        if ($refused_since !== null && elapsed() - $refused_since > REFUSED_SECONDS) {
            $next = 'the volume was made with another password: restore the Secret it was made with';
            fail(ExitCode::PasswordRefused, "the database refuses the password ($cause)", $next);
        }
        if (elapsed() > ANSWER_SECONDS) {
            $next = 'look at the log of the mariadb pod';
            fail(ExitCode::DatabaseAway, "no database after " . ANSWER_SECONDS . " s ($cause)", $next);
        }
        usleep(50_000);
    }
}

/** Keeps every other setup of this store out for as long as the connection lives. */
function take_lock(\mysqli $connection): void
{
    $connection->query('SET SESSION wait_timeout = ' . RELEASE_SECONDS);
    $taken = $connection->query("SELECT GET_LOCK('store-setup', " . LOCK_SECONDS . ')')->fetch_row()[0];
    if ((int) $taken !== 1) {
        $next = 'wait for its end, or end it, then try again';
        fail(ExitCode::Busy, 'another setup of this store is at work', $next);
    }
}
