-- purpose: Which Job an attempt has by now, when recording ours found the attempt moved on
-- rows: zero or one
-- caller: dispatcher, reconciler
-- index: attempts_pkey
-- locks: nothing
-- $1: operation id, $2: attempt
SELECT a.job_uid
FROM storeplane.attempts AS a
WHERE a.operation_id = $1::uuid AND a.number = $2::integer
