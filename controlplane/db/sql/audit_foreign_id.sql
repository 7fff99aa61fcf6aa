-- purpose: Keep that a caller asked for a store or operation of another user; nothing when there is none
-- rows: none
-- caller: services, whenever they answer that there is nothing with an id
-- index: stores_pkey, operations_pkey
-- locks: the new row
-- $1: id, $2: caller's id, $3: caller's address
INSERT INTO storeplane.audit_log (actor_id, store_id, action, details, ip)
SELECT $2::uuid, found.store_id, 'security.foreign_id', jsonb_build_object('id', $1::uuid), $3::text
FROM (
  SELECT s.id AS store_id FROM storeplane.stores AS s WHERE s.id = $1::uuid AND s.owner_id <> $2::uuid
  UNION ALL
  SELECT o.store_id FROM storeplane.operations AS o WHERE o.id = $1::uuid AND o.owner_id <> $2::uuid
) AS found
