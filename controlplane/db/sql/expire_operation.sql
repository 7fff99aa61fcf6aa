-- purpose: Fail an operation that is out of time, with its open attempt; a create that had begun gets a clean-up
-- rows: one, or none when it ended meanwhile
-- caller: reconciler, behind lock_operation in one transaction
-- index: operations_pkey, attempts_one_open, stores_pkey
-- locks: the operation's row, then the store's, the attempt's, the cluster's, the user's slots
-- $1: operation id, $2: expected state, $3: error, $4: id of the clean-up
-- What its pod waited for goes into the error: without it the timeout would hide the cause.
WITH operation AS (
  SELECT o.id, o.store_id, o.owner_id, o.cluster_id, o.kind, o.spec, o.request_id, o.attempt,
         $3::jsonb || CASE WHEN o.waiting_reason = '' THEN '{}' ELSE jsonb_build_object(
           'detail', format('%s; it was waiting: %s', $3::jsonb ->> 'detail', o.waiting_reason)) END AS error
  FROM storeplane.operations AS o
  WHERE o.id = $1::uuid AND o.state = $2::text
  FOR NO KEY UPDATE
), store AS (
  UPDATE storeplane.stores AS s SET state = 'failed', updated_at = now()
  FROM operation
  WHERE s.id = operation.store_id AND s.state = 'provisioning'
  RETURNING s.id, s.may_have_objects
), attempt AS (
  UPDATE storeplane.attempts AS a
  SET state = 'failed', outcome = 'timeout', problem = operation.error, finished_at = now()
  FROM operation
  WHERE a.operation_id = operation.id AND a.finished_at IS NULL
  RETURNING a.operation_id
), ended AS (
  -- Joined, so that it comes after the attempt: its trigger takes the cluster's row before the user's, as the claim does.
  UPDATE storeplane.operations AS o
  SET state = 'failed', finished_at = now(), lease_until = NULL, lease_holder = NULL, next_dispatch_at = NULL,
      fence = o.fence + 1, error = operation.error
  FROM operation LEFT JOIN attempt ON attempt.operation_id = operation.id
  WHERE o.id = operation.id
  RETURNING o.id
), cleanup AS (
  INSERT INTO storeplane.operations (id, store_id, owner_id, cluster_id, kind, spec, request_id)
  SELECT $4::uuid, o.store_id, o.owner_id, o.cluster_id, 'cleanup', o.spec, o.request_id
  FROM operation AS o
  JOIN store ON store.id = o.store_id
  -- Behind the end: a store has one active operation.
  JOIN ended ON ended.id = o.id
  WHERE o.kind = 'create' AND store.may_have_objects
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT operation.store_id, operation.id, 'timeout', $3::jsonb ->> 'title',
         jsonb_build_object('kind', operation.kind, 'attempt', operation.attempt, 'error', operation.error)
  FROM operation
)
SELECT operation.id FROM operation
