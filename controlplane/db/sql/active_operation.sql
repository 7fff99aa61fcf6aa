-- purpose: What a store is busy with, if the caller may see it; the newest where a delete waits behind another
-- rows: zero or one
-- caller: services.stores, services.operations, to name it in a conflict
-- index: operations_one_active, operations_one_delete
-- locks: nothing
-- $1: store id, $2: caller's id, $3: caller's role
SELECT o.id, o.kind, o.retry_of
FROM storeplane.operations AS o
WHERE o.store_id = $1::uuid AND o.state IN ('queued', 'running')
  AND (o.owner_id = $2::uuid OR $3::text IN ('operator', 'admin'))
ORDER BY o.kind = 'delete' DESC, o.created_at DESC
LIMIT 1
