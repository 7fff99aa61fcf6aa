-- purpose: Remember that no pod of an ended attempt can do anything any more
-- rows: one, or none when that was known or the attempt is open
-- caller: reconciler
-- index: attempts_pkey
-- locks: the attempt's row
-- $1: operation id, $2: attempt
UPDATE storeplane.attempts AS a
SET pods_ended_at = now()
WHERE a.operation_id = $1::uuid AND a.number = $2::integer AND a.pods_ended_at IS NULL AND a.finished_at IS NOT NULL
RETURNING a.number
