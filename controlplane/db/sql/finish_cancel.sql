-- purpose: End a cancelled operation that has no open attempt; a create that had begun gets a clean-up
-- rows: one, or none when it has an open attempt, is over, or nobody asked to cancel it
-- caller: services.operations at once, reconciler once the attempt has ended
-- index: operations_pkey, attempts_one_open, stores_pkey
-- locks: the operation's row, then the store's
-- $1: operation id, $2: id of the clean-up
-- A store that is being deleted needs no clean-up: its delete waits behind this operation.
WITH operation AS (
  UPDATE storeplane.operations AS o
  SET state = 'cancelled', finished_at = now(), lease_until = NULL, lease_holder = NULL
  WHERE o.id = $1::uuid AND o.state IN ('queued', 'running') AND o.cancel_requested_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM storeplane.attempts AS a WHERE a.operation_id = o.id AND a.finished_at IS NULL)
  RETURNING o.id, o.store_id, o.owner_id, o.cluster_id, o.kind, o.spec, o.request_id, o.attempt
), store AS (
  UPDATE storeplane.stores AS s SET state = 'failed', updated_at = now()
  FROM operation
  WHERE s.id = operation.store_id AND s.state = 'provisioning'
  RETURNING s.id, s.may_have_objects
), cleanup AS (
  INSERT INTO storeplane.operations (id, store_id, owner_id, cluster_id, kind, spec, request_id)
  SELECT $2::uuid, o.store_id, o.owner_id, o.cluster_id, 'cleanup', o.spec, o.request_id
  FROM operation AS o
  JOIN store ON store.id = o.store_id
  WHERE o.kind = 'create' AND store.may_have_objects
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT operation.store_id, operation.id, 'cancelled', 'The operation was cancelled',
         jsonb_build_object('kind', operation.kind, 'attempt', operation.attempt)
  FROM operation
)
SELECT operation.id FROM operation
