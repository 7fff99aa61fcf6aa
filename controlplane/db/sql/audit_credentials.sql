-- purpose: Keep that somebody asked for a store's credentials, and what came of it; nothing when there is no such store
-- rows: zero or one
-- caller: services.credentials, before it answers
-- index: stores_pkey
-- locks: the new row; the store's row against its removal, by the foreign key
-- $1: store id, $2: caller's id, $3: details, $4: caller's address
INSERT INTO storeplane.audit_log (actor_id, store_id, action, details, ip)
SELECT $2::uuid, s.id, 'credentials_read', $3::jsonb, $4::text
FROM storeplane.stores AS s WHERE s.id = $1::uuid
RETURNING id
