-- purpose: Take the harvest of an ended attempt, so that one process alone reads its log
-- rows: one, or none when another process is at it or it is done
-- caller: reconciler
-- index: attempts_pkey
-- locks: the attempt's row
-- $1: operation id, $2: attempt, $3: seconds after which another may take it
UPDATE storeplane.attempts AS a
SET harvest_until = now() + make_interval(secs => $3::double precision)
WHERE a.operation_id = $1::uuid AND a.number = $2::integer AND a.finished_at IS NOT NULL AND a.harvested_at IS NULL
  AND (a.harvest_until IS NULL OR a.harvest_until < now())
RETURNING a.number
