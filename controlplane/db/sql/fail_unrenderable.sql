-- purpose: Fail a claimed operation whose Job can never be created
-- rows: one, or none when the claim is lost
-- caller: dispatcher
-- index: operations_pkey, attempts_one_open, stores_pkey
-- locks: the operation's row, then the attempt's, then the store's
-- $1: operation id, $2: fence, $3: error
WITH operation AS (
  UPDATE storeplane.operations AS o
  SET state = 'failed', error = $3::jsonb, finished_at = now(), lease_until = NULL, lease_holder = NULL
  WHERE o.id = $1::uuid AND o.fence = $2::bigint AND o.state = 'queued'
  RETURNING o.id, o.store_id, o.attempt
), attempt AS (
  UPDATE storeplane.attempts AS a
  SET state = 'failed', outcome = 'permanent', problem = $3::jsonb, finished_at = now()
  FROM operation
  WHERE a.operation_id = operation.id AND a.number = operation.attempt AND a.state = 'created'
), store AS (
  UPDATE storeplane.stores AS s SET state = 'failed', updated_at = now()
  FROM operation
  WHERE s.id = operation.store_id AND s.state = 'provisioning'
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT operation.store_id, operation.id, 'provisioning_failed', $3::jsonb ->> 'title',
         jsonb_build_object('attempt', operation.attempt, 'error', $3::jsonb)
  FROM operation
)
SELECT operation.id FROM operation
