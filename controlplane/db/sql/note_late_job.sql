-- purpose: Remember the Job of an attempt that ended before it was recorded, so that it is observed and removed
-- rows: one, or none when the attempt has one
-- caller: reconciler
-- index: attempts_pkey
-- locks: the attempt's row
-- $1: operation id, $2: attempt, $3: Job's uid
UPDATE storeplane.attempts AS a
SET job_uid = $3::text
WHERE a.operation_id = $1::uuid AND a.number = $2::integer AND a.job_uid IS NULL AND a.finished_at IS NOT NULL
RETURNING a.number
