-- purpose: Where an attempt's log is, if the caller may see it
-- rows: zero or one
-- caller: services.logs
-- index: operations_pkey, attempts_pkey, attempt_logs_pkey
-- locks: nothing
-- $1: operation id, $2: caller's id, $3: caller's role, $4: attempt, or null for the newest
SELECT coalesce($4::integer, o.attempt) AS number, a.number IS NOT NULL AS is_known, a.job_uid, a.log_state, l.content
FROM storeplane.operations AS o
LEFT JOIN storeplane.attempts AS a ON a.operation_id = o.id AND a.number = coalesce($4::integer, o.attempt)
LEFT JOIN storeplane.attempt_logs AS l ON l.operation_id = a.operation_id AND l.number = a.number
WHERE o.id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text IN ('operator', 'admin'))
LIMIT 1
