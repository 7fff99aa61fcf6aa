-- purpose: Attempts that are open or not harvested, oldest first, with the database's clock
-- rows: up to the limit
-- caller: reconciler
-- index: attempts_unharvested
-- locks: nothing
-- $1: limit
SELECT a.operation_id, a.number, a.state, a.job_name, a.job_uid, a.pod_uid, a.finished_at, o.store_id,
       o.state IN ('succeeded', 'failed', 'cancelled') AS operation_ended, o.lease_until, o.deadline_at, now() AS now
FROM storeplane.attempts AS a
JOIN storeplane.operations AS o ON o.id = a.operation_id
WHERE a.harvested_at IS NULL
ORDER BY a.created_at
LIMIT $1::integer
