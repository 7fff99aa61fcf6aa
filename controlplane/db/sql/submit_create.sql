-- purpose: Accept a create: count it, write store, operation, first event, audit row and idempotency key, or nothing
-- rows: one, or none when the user's number of stores or rate is used up
-- caller: services.stores
-- index: users_pkey; stores_slug_unique, stores_host_unique, operations_one_active and idempotency_keys_pkey decide
-- whether it may
-- locks: the user's row, then the new rows
-- $1: store id, $2: owner id, $3: cluster id, $4: name, $5: slug, $6: engine, $7: namespace, $8: urls,
-- $9: operation id, $10: spec, $11: request id, $12: caller's address, $13: creates a minute,
-- $14: route, $15: idempotency key or null, $16: fingerprint of what was asked, $17: plan, $18: host
-- The guard stands on the user's row: of two creates at once the second waits for the first one's commit and reads the
-- row anew, so neither limit is ever passed. The clock is read anew as well: the transaction's own moment lies before the
-- commit it waited for, and would count a create that is allowed as too early.
WITH account AS (
  UPDATE storeplane.users AS u
  SET store_count = u.store_count + 1,
      creates_until = greatest(u.creates_until, clock_timestamp()) + interval '1 minute' / $13::integer
  WHERE u.id = $2::uuid AND u.store_count < u.max_stores
    AND u.creates_until + interval '1 minute' / $13::integer - interval '1 minute' <= clock_timestamp()
  RETURNING u.id, u.creates_until
), store AS (
  INSERT INTO storeplane.stores (id, owner_id, cluster_id, name, slug, engine, plan, state, namespace, host, urls)
  SELECT $1::uuid, account.id, $3::text, $4::text, $5::text, $6::text, $17::text, 'provisioning',
         $7::text, $18::text, $8::jsonb
  FROM account
  RETURNING id, owner_id, cluster_id, created_at
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
), idempotency AS (
  INSERT INTO storeplane.idempotency_keys (user_id, route, key, fingerprint, operation_id)
  SELECT operation.owner_id, $14::text, $15::text, $16::bytea, operation.id
  FROM operation
  WHERE $15::text IS NOT NULL
)
SELECT store.created_at, floor(extract(epoch FROM clock_timestamp() + interval '1 minute' - account.creates_until)
                           * $13::integer / 60)::integer AS creates_left,
       ceil(extract(epoch FROM account.creates_until - clock_timestamp()))::integer AS reset_seconds
FROM account, store
