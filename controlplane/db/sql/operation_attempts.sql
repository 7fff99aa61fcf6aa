-- purpose: Every attempt of an operation with its phases, oldest first, if the caller may see it
-- rows: one for each attempt
-- caller: services.operations
-- index: operations_pkey, attempts_pkey, phases_pkey
-- locks: nothing
-- $1: operation id, $2: caller's id, $3: caller's role
SELECT a.number, a.state, a.outcome, a.exit_code, a.job_name, a.job_uid, a.created_at, a.dispatched_at, a.started_at,
       a.finished_at, a.problem, a.diagnosis, a.log_state,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
                 'phase', p.phase, 'started_at', p.started_at, 'finished_at', p.finished_at, 'detail', p.detail
               ) ORDER BY p.started_at, p.finished_at), '[]')
        FROM storeplane.phases AS p
        WHERE p.operation_id = a.operation_id AND p.number = a.number) AS phases
FROM storeplane.operations AS o
JOIN storeplane.attempts AS a ON a.operation_id = o.id
WHERE o.id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text IN ('operator', 'admin'))
ORDER BY a.number
