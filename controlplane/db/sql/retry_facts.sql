-- purpose: What decides whether and how an operation may be tried again, if the caller may see it
-- rows: zero or one
-- caller: services.retries
-- index: operations_pkey, stores_pkey, operations_by_store
-- locks: nothing
-- $1: operation id, $2: caller's id, $3: caller's role
SELECT o.store_id, o.owner_id, o.kind, o.state, o.spec, s.state AS store_state,
       o.cancel_requested_at IS NOT NULL AS is_cancelling,
       (SELECT n.id FROM storeplane.operations AS n
        WHERE n.store_id = o.store_id AND (n.created_at, n.id) > (o.created_at, o.id) AND n.kind <> 'cleanup'
        ORDER BY n.created_at DESC, n.id DESC LIMIT 1) AS newer_id
FROM storeplane.operations AS o
JOIN storeplane.stores AS s ON s.id = o.store_id
WHERE o.id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text IN ('operator', 'admin'))
