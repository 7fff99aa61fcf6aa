-- purpose: Record the Jobs of attempts that have no session yet
-- rows: one for each that was recorded; none for an attempt that moved on
-- caller: dispatcher after its creates; reconciler and reattach for a Job that was never recorded
-- index: operations_pkey, user_slots_pkey, attempts_pkey
-- locks: the operations' rows by id, then their users' slots by id, then the attempts'
-- $1: operation ids, $2: attempts, $3: Jobs' uids
-- The first dispatch sets the deadline. A cancelled operation is recorded too: its Job has to be found to be removed.
-- The slots change by a trigger, one after the other; locked in order before, two processes do not wait for each other.
WITH made AS (
  SELECT m.operation_id, m.number, m.job_uid
  FROM unnest($1::uuid[], $2::integer[], $3::text[]) AS m (operation_id, number, job_uid)
), operation AS MATERIALIZED (
  SELECT o.id, o.cluster_id, o.owner_id, m.number, m.job_uid
  FROM storeplane.operations AS o
  JOIN made AS m ON m.operation_id = o.id AND m.number = o.attempt
  WHERE o.state IN ('queued', 'running')
  ORDER BY o.id
  FOR NO KEY UPDATE OF o
), slots AS MATERIALIZED (
  SELECT s.cluster_id, s.user_id
  FROM storeplane.user_slots AS s
  WHERE (s.cluster_id, s.user_id) IN (SELECT x.cluster_id, x.owner_id FROM operation AS x)
  ORDER BY s.user_id
  FOR NO KEY UPDATE OF s
), attempt AS (
  UPDATE storeplane.attempts AS a
  SET state = 'dispatched', job_uid = x.job_uid, dispatched_at = now()
  FROM operation AS x
  JOIN slots AS s ON s.cluster_id = x.cluster_id AND s.user_id = x.owner_id
  WHERE a.operation_id = x.id AND a.number = x.number AND a.state = 'created' AND a.pod_uid IS NULL
  RETURNING a.operation_id, a.number, a.job_uid
)
UPDATE storeplane.operations AS o
SET state = 'running', waiting_reason = '', waiting_since = now(), lease_until = NULL, lease_holder = NULL,
    next_dispatch_at = NULL, started_at = coalesce(o.started_at, now()),
    deadline_at = coalesce(o.deadline_at, now() + storeplane.time_allowed(o.kind))
FROM attempt
WHERE o.id = attempt.operation_id
RETURNING attempt.operation_id, attempt.number, attempt.job_uid
