-- purpose: Remember when the end of an attempt's container or Job was seen first, by the database's clock
-- rows: one, or none when it was noted before or the attempt is over
-- caller: reconciler
-- index: attempts_pkey
-- locks: the attempt's row
-- $1: operation id, $2: attempt
UPDATE storeplane.attempts AS a
SET end_seen_at = now()
WHERE a.operation_id = $1::uuid AND a.number = $2::integer AND a.end_seen_at IS NULL AND a.finished_at IS NULL
RETURNING a.number
