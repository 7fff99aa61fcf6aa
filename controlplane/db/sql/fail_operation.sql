-- purpose: Fail a running operation whose newest attempt ended without success, and its store with it
-- rows: one, or none when it is not running or has an open attempt again
-- caller: reconciler
-- index: operations_pkey, attempts_pkey, stores_pkey
-- locks: the operation's row, then the store's
-- $1: operation id, $2: attempt that ended, $3: error
WITH operation AS (
  UPDATE storeplane.operations AS o
  SET state = 'failed', error = $3::jsonb, finished_at = now(), lease_until = NULL, lease_holder = NULL
  WHERE o.id = $1::uuid AND o.state = 'running' AND o.attempt = $2::integer AND o.next_dispatch_at IS NULL
    AND o.cancel_requested_at IS NULL AND EXISTS (
      SELECT FROM storeplane.attempts AS a
      WHERE a.operation_id = o.id AND a.number = o.attempt AND a.finished_at IS NOT NULL
    )
  RETURNING o.id, o.store_id, o.kind
), store AS (
  UPDATE storeplane.stores AS s SET state = 'failed', updated_at = now()
  FROM operation
  WHERE s.id = operation.store_id AND s.state = 'provisioning'
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT operation.store_id, operation.id, 'provisioning_failed', $3::jsonb ->> 'title',
         jsonb_build_object('kind', operation.kind, 'attempt', $2::integer, 'error', $3::jsonb)
  FROM operation
)
SELECT operation.id FROM operation
