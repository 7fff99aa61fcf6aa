-- purpose: Fail a claimed operation whose Job can never be created
-- rows: one, or none when the claim is lost
-- caller: dispatcher
-- index: operations_pkey, attempts_one_open, stores_pkey
-- locks: the operation's row, then the store's, then the attempt's
-- $1: operation id, $2: fence, $3: error
-- There is no Job, or one that is not ours: nothing to harvest and no pod to wait for.
WITH operation AS (
  UPDATE storeplane.operations AS o
  SET state = 'failed', error = $3::jsonb, finished_at = now(), lease_until = NULL, lease_holder = NULL,
      next_dispatch_at = NULL
  WHERE o.id = $1::uuid AND o.fence = $2::bigint AND o.state IN ('queued', 'running')
  RETURNING o.id, o.store_id, o.kind, o.attempt
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
