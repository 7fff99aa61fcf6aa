-- purpose: Ask an operation to end, and keep that it was asked
-- rows: one, or none when it may not be cancelled, is over, or was asked before
-- caller: services.operations, with finish_cancel in the same transaction
-- index: operations_pkey
-- locks: the operation's row, then the user's slots
-- $1: operation id, $2: caller's id, $3: caller's role, $4: caller's address
WITH operation AS (
  UPDATE storeplane.operations AS o
  SET cancel_requested_at = now(), next_dispatch_at = NULL, waiting_since = now()
  WHERE o.id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text = 'admin')
    AND o.state IN ('queued', 'running') AND o.kind NOT IN ('delete', 'cleanup') AND o.cancel_requested_at IS NULL
  RETURNING o.id, o.store_id, o.kind
), audit AS (
  INSERT INTO storeplane.audit_log (actor_id, store_id, action, details, ip)
  SELECT $2::uuid, operation.store_id, 'operation.cancel',
         jsonb_build_object('operation_id', operation.id, 'kind', operation.kind), $4::text
  FROM operation
)
SELECT operation.id FROM operation
