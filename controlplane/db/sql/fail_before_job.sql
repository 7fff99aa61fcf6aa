-- purpose: Fail a claimed operation whose Job can never be created
-- rows: one, or none when the claim is lost
-- caller: dispatcher, behind lock_operation in one transaction
-- index: operations_pkey, attempts_one_open, stores_pkey
-- locks: the operation's row, then the store's, the attempt's, the cluster's, the user's slots
-- $1: operation id, $2: fence, $3: error
-- There is no Job, or one that is not ours: nothing to harvest and no pod to wait for.
WITH operation AS (
  SELECT o.id, o.store_id, o.kind, o.attempt FROM storeplane.operations AS o
  WHERE o.id = $1::uuid AND o.fence = $2::bigint AND o.state IN ('queued', 'running') AND EXISTS (
    SELECT FROM storeplane.attempts AS a
    WHERE a.operation_id = o.id AND a.number = o.attempt AND a.state = 'created')
  FOR NO KEY UPDATE
), store AS (
  UPDATE storeplane.stores AS s SET state = 'failed', updated_at = now()
  FROM operation
  WHERE s.id = operation.store_id AND s.state = 'provisioning'
), attempt AS (
  UPDATE storeplane.attempts AS a
  SET state = 'failed', outcome = 'permanent', problem = $3::jsonb, finished_at = now(), harvested_at = now(),
      log_state = 'unavailable', pods_ended_at = now()
  FROM operation
  WHERE a.operation_id = operation.id AND a.number = operation.attempt AND a.state = 'created'
  RETURNING a.operation_id
), ended AS (
  -- Joined, so that it comes after the attempt: its trigger takes the cluster's row before the user's, as the claim does.
  UPDATE storeplane.operations AS o
  SET state = 'failed', error = $3::jsonb, finished_at = now(), lease_until = NULL, lease_holder = NULL,
      next_dispatch_at = NULL
  FROM operation LEFT JOIN attempt ON attempt.operation_id = operation.id
  WHERE o.id = operation.id
), audit AS (
  INSERT INTO storeplane.audit_log (store_id, action, details)
  SELECT operation.store_id, 'security.foreign_job',
         jsonb_build_object('operation_id', operation.id, 'attempt', operation.attempt, 'error', $3::jsonb)
  FROM operation
  WHERE $3::jsonb ->> 'code' = 'JOB_CONFLICT'
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT operation.store_id, operation.id, 'provisioning_failed', $3::jsonb ->> 'title',
         jsonb_build_object('kind', operation.kind, 'attempt', operation.attempt, 'error', $3::jsonb)
  FROM operation
)
SELECT operation.id FROM operation
