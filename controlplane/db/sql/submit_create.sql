-- purpose: Accept a create: store, operation, first event and audit row, all or nothing
-- rows: one
-- caller: services.stores
-- index: stores_slug_unique and operations_one_active decide whether it may
-- locks: the new rows
-- $1: store id, $2: owner id, $3: cluster id, $4: name, $5: slug, $6: engine, $7: namespace, $8: urls,
-- $9: operation id, $10: spec, $11: request id, $12: caller's address
WITH store AS (
  INSERT INTO storeplane.stores (id, owner_id, cluster_id, name, slug, engine, state, namespace, urls)
  VALUES ($1::uuid, $2::uuid, $3::text, $4::text, $5::text, $6::text, 'provisioning', $7::text, $8::jsonb)
  RETURNING id, owner_id, cluster_id, name, engine
), operation AS (
  INSERT INTO storeplane.operations (id, store_id, owner_id, cluster_id, kind, spec, request_id)
  SELECT $9::uuid, store.id, store.owner_id, store.cluster_id, 'create', $10::jsonb, $11::text FROM store
  RETURNING id, store_id, owner_id
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT operation.store_id, operation.id, 'created', 'Store creation accepted', jsonb_build_object('engine', $6::text)
  FROM operation
), audit AS (
  INSERT INTO storeplane.audit_log (actor_id, store_id, action, details, ip)
  SELECT operation.owner_id, operation.store_id, 'store.create',
         jsonb_build_object('operation_id', operation.id, 'name', $4::text, 'engine', $6::text), $12::text
  FROM operation
)
SELECT operation.id FROM operation
