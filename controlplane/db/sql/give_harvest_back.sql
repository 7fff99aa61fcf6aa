-- purpose: Let anybody take a harvest again that could not be done
-- rows: none
-- caller: reconciler
-- index: attempts_pkey
-- locks: the attempt's row
-- $1: operation id, $2: attempt
UPDATE storeplane.attempts AS a
SET harvest_until = NULL
WHERE a.operation_id = $1::uuid AND a.number = $2::integer AND a.harvested_at IS NULL
