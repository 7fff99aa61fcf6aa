-- purpose: Record the Job of an attempt that has no session yet
-- rows: one, or none when the attempt moved on
-- caller: dispatcher after the create; reconciler and reattach for a Job that was never recorded
-- index: operations_pkey, attempts_pkey
-- locks: the operation's row, then the attempt's
-- $1: operation id, $2: attempt, $3: Job's uid
-- The first dispatch sets the deadline. A cancelled operation is recorded too: its Job has to be found to be removed.
WITH operation AS (
  SELECT o.id FROM storeplane.operations AS o
  WHERE o.id = $1::uuid AND o.attempt = $2::integer AND o.state IN ('queued', 'running')
  FOR NO KEY UPDATE
), attempt AS (
  UPDATE storeplane.attempts AS a
  SET state = 'dispatched', job_uid = $3::text, dispatched_at = now()
  FROM operation
  WHERE a.operation_id = operation.id AND a.number = $2::integer AND a.state = 'created' AND a.pod_uid IS NULL
  RETURNING a.operation_id
)
UPDATE storeplane.operations AS o
SET state = 'running', waiting_reason = '', waiting_since = now(), lease_until = NULL, lease_holder = NULL,
    next_dispatch_at = NULL, started_at = coalesce(o.started_at, now()),
    deadline_at = coalesce(o.deadline_at, now() + storeplane.time_allowed(o.kind))
FROM attempt
WHERE o.id = attempt.operation_id
RETURNING o.id
