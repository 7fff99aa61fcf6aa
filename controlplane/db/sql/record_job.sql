-- purpose: Record the Job of an attempt that has no session yet
-- rows: one, or none when the attempt moved on
-- caller: dispatcher after the create; reconciler when it finds a Job that was never recorded
-- index: attempts_pkey, operations_pkey, users_pkey
-- locks: the operation's row, then the attempt's, then the user's, whose turn this was
-- $1: operation id, $2: attempt, $3: Job's uid
WITH operation AS (
  SELECT o.id FROM storeplane.operations AS o
  WHERE o.id = $1::uuid AND o.attempt = $2::integer AND o.state = 'queued'
  FOR NO KEY UPDATE
), attempt AS (
  UPDATE storeplane.attempts AS a
  SET state = 'dispatched', job_uid = $3::text, dispatched_at = now()
  FROM operation
  WHERE a.operation_id = operation.id AND a.number = $2::integer AND a.state = 'created' AND a.pod_uid IS NULL
  RETURNING a.operation_id
), served AS (
  UPDATE storeplane.users AS u SET last_served_at = now()
  FROM storeplane.operations AS o, attempt
  WHERE o.id = attempt.operation_id AND u.id = o.owner_id
)
UPDATE storeplane.operations AS o
SET state = 'running', waiting_reason = '', waiting_since = now(), lease_until = NULL, lease_holder = NULL,
    started_at = coalesce(o.started_at, now()), deadline_at = coalesce(o.deadline_at, now() + interval '15 minutes')
FROM attempt
WHERE o.id = attempt.operation_id
RETURNING o.id
