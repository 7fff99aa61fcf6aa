-- purpose: A page of the attempts that are open or not harvested, oldest first, with the database's clock
-- rows: up to the limit
-- caller: reconciler
-- index: attempts_unharvested
-- locks: nothing
-- $1: created_at, $2: operation id and $3: number after which the page begins, null for the first, $4: limit
SELECT a.operation_id, a.number, a.state, a.job_name, a.job_uid, a.pod_uid, a.created_at, a.finished_at, a.end_seen_at,
       o.lease_until, o.waiting_reason, now() AS now
FROM storeplane.attempts AS a
JOIN storeplane.operations AS o ON o.id = a.operation_id
WHERE a.harvested_at IS NULL
  AND ($1::timestamptz IS NULL
       OR (a.created_at, a.operation_id, a.number) > ($1::timestamptz, $2::uuid, $3::integer))
ORDER BY a.created_at, a.operation_id, a.number
LIMIT $4::integer
