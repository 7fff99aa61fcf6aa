-- purpose: Accept the retry of an ended operation as a new operation of the same kind
-- rows: one, or none when the ended one is not the store's newest any more or the store moved on
-- caller: services.retries
-- index: operations_pkey, operations_by_store, stores_pkey; operations_one_active and _one_delete decide
-- locks: the store's row, then the new rows
-- $1: ended operation, $2: caller's id, $3: caller's role, $4: new operation's id, $5: spec, $6: request id,
-- $7: caller's address, $8: what the spec has changed, $9: the store's addresses, null for those it has
-- Guarded by the store's state: of two at once the second waits here, then finds the store provisioning. Clean-ups do
-- not count as newer: they follow a failed create by themselves.
WITH ended AS (
  SELECT o.id, o.store_id, o.owner_id, o.cluster_id, o.kind
  FROM storeplane.operations AS o
  WHERE o.id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text = 'admin') AND o.state IN ('failed', 'cancelled')
    AND NOT EXISTS (
      SELECT FROM storeplane.operations AS n
      WHERE n.store_id = o.store_id AND (n.created_at, n.id) > (o.created_at, o.id) AND n.kind <> 'cleanup')
), store AS (
  UPDATE storeplane.stores AS s
  SET state = CASE ended.kind WHEN 'create' THEN 'provisioning' ELSE s.state END,
      urls = CASE ended.kind WHEN 'create' THEN coalesce($9::jsonb, s.urls) ELSE s.urls END, updated_at = now()
  FROM ended
  WHERE s.id = ended.store_id AND s.state <> 'deleted'
    AND s.state = CASE ended.kind
      WHEN 'create' THEN 'failed' WHEN 'cleanup' THEN 'failed' WHEN 'delete' THEN 'deleting' ELSE s.state END
  RETURNING s.id
), operation AS (
  INSERT INTO storeplane.operations (id, store_id, owner_id, cluster_id, kind, spec, request_id, retry_of)
  SELECT $4::uuid, store.id, ended.owner_id, ended.cluster_id, ended.kind, $5::jsonb, $6::text, ended.id
  FROM ended, store
  RETURNING id, store_id, kind, retry_of
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT operation.store_id, operation.id, 'retry_scheduled', 'A person asked to try again',
         jsonb_build_object('kind', operation.kind, 'retry_of', operation.retry_of)
  FROM operation
), audit AS (
  INSERT INTO storeplane.audit_log (actor_id, store_id, action, details, ip)
  SELECT $2::uuid, operation.store_id, 'operation.retry',
         jsonb_build_object('operation_id', operation.id, 'retry_of', operation.retry_of, 'spec_changes', $8::jsonb),
         $7::text
  FROM operation
)
SELECT operation.id FROM operation
