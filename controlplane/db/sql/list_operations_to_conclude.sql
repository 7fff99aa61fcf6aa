-- purpose: Active operations with no open attempt that wait for nothing: what comes after their newest attempt's end
-- rows: up to the limit
-- caller: reconciler
-- index: operations_running, operations_to_cancel, attempts_pkey; operations_pkey when operations are named
-- locks: nothing
-- $1: limit, $2: operations to look at alone, null for all, $3: cluster
SELECT o.id AS operation_id, o.kind, o.attempt, o.cancel_requested_at IS NOT NULL AS is_cancelled, o.memory_mib,
       extract(epoch FROM o.deadline_at - now())::double precision AS seconds_left,
       a.problem, counted.outcomes
FROM storeplane.operations AS o
LEFT JOIN storeplane.attempts AS a ON a.operation_id = o.id AND a.number = o.attempt
CROSS JOIN LATERAL (
  SELECT coalesce(array_agg(e.outcome ORDER BY e.number), '{}') AS outcomes
  FROM storeplane.attempts AS e
  WHERE e.operation_id = o.id AND e.finished_at IS NOT NULL
) AS counted
WHERE o.state IN ('queued', 'running') AND o.cluster_id = $3::text AND o.next_dispatch_at IS NULL
  AND (o.cancel_requested_at IS NOT NULL OR o.state = 'running')
  AND ($2::uuid[] IS NULL OR o.id = ANY ($2::uuid[]))
  AND (a.number IS NULL OR a.finished_at IS NOT NULL)
LIMIT $1::integer
