-- purpose: One store and its newest operation, if the caller may see it
-- rows: zero or one
-- caller: services.stores
-- index: stores_pkey, operations_by_store
-- locks: nothing
-- $1: store id, $2: caller's id, $3: caller's role
SELECT s.id, s.owner_id, s.name, s.slug, s.engine, s.engine_flavour, s.plan, s.state, s.namespace, s.urls,
       s.created_at, s.updated_at, newest.id AS operation_id, newest.spec
FROM storeplane.stores AS s
LEFT JOIN LATERAL (
  SELECT o.id, o.spec FROM storeplane.operations AS o
  WHERE o.store_id = s.id ORDER BY o.created_at DESC, o.id DESC LIMIT 1
) AS newest ON true
WHERE s.id = $1::uuid AND (s.owner_id = $2::uuid OR $3::text IN ('operator', 'admin'))
