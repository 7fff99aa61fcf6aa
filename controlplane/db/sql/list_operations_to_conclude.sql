-- purpose: Running operations whose newest attempt ended without success
-- rows: up to the limit
-- caller: reconciler
-- index: operations_running, attempts_pkey
-- locks: nothing
-- $1: limit
SELECT o.id AS operation_id, o.attempt, a.outcome, a.problem
FROM storeplane.operations AS o
JOIN storeplane.attempts AS a ON a.operation_id = o.id AND a.number = o.attempt
WHERE o.state = 'running' AND a.state IN ('failed', 'lost')
ORDER BY o.deadline_at
LIMIT $1::integer
