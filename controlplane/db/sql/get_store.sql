-- purpose: One store, if the caller may see it
-- rows: zero or one
-- caller: services.stores
-- index: stores_pkey
-- locks: nothing
-- $1: store id, $2: caller's id, $3: caller's role
SELECT s.id, s.owner_id, s.name, s.slug, s.engine, s.state, s.namespace, s.urls, s.created_at
FROM storeplane.stores AS s
WHERE s.id = $1::uuid AND (s.owner_id = $2::uuid OR $3::text IN ('operator', 'admin'))
