-- purpose: Accept a delete: store, operation, event and audit row, all or nothing
-- rows: one, or none when the store is deleted by now or not the caller's
-- caller: services.stores
-- index: stores_pkey; operations_one_delete decides whether it may
-- locks: the store's row, then the new rows
-- $1: store id, $2: caller's id, $3: caller's role, $4: operation id, $5: spec, $6: request id, $7: caller's address
WITH store AS (
  UPDATE storeplane.stores AS s SET state = 'deleting', updated_at = now()
  WHERE s.id = $1::uuid AND (s.owner_id = $2::uuid OR $3::text = 'admin') AND s.state <> 'deleted'
  RETURNING s.id, s.owner_id, s.cluster_id, s.name
), operation AS (
  INSERT INTO storeplane.operations (id, store_id, owner_id, cluster_id, kind, spec, request_id)
  SELECT $4::uuid, store.id, store.owner_id, store.cluster_id, 'delete', $5::jsonb, $6::text FROM store
  RETURNING id, store_id
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message)
  SELECT operation.store_id, operation.id, 'deleting', 'Store deletion accepted' FROM operation
), audit AS (
  INSERT INTO storeplane.audit_log (actor_id, store_id, action, details, ip)
  SELECT $2::uuid, store.id, 'store.delete',
         jsonb_build_object('operation_id', operation.id, 'name', store.name), $7::text
  FROM operation, store
)
SELECT operation.id FROM operation
