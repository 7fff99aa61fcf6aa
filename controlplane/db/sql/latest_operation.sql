-- purpose: The newest operation of a store, if the caller may see it
-- rows: zero or one
-- caller: services.stores
-- index: operations_by_store
-- locks: nothing
-- $1: store id, $2: caller's id, $3: caller's role
SELECT o.id
FROM storeplane.operations AS o
WHERE o.store_id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text IN ('operator', 'admin'))
ORDER BY o.created_at DESC, o.id DESC
LIMIT 1
