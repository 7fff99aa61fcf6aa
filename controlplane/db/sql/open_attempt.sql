-- purpose: The newest attempt of an operation, to find its Job
-- rows: zero or one
-- caller: services.reattach
-- index: operations_pkey, attempts_pkey
-- locks: nothing
-- $1: operation id, $2: caller's id, $3: caller's role
SELECT o.store_id, o.state, a.number, a.state AS attempt_state, a.job_name, a.job_uid,
       a.manifest, a.token_hash
FROM storeplane.operations AS o
LEFT JOIN storeplane.attempts AS a ON a.operation_id = o.id AND a.number = o.attempt
WHERE o.id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text = 'admin')
