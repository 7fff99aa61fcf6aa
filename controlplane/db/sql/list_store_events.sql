-- purpose: A page of a store's history, oldest first, if the caller may see it
-- rows: up to the limit
-- caller: services.stores
-- index: store_events_by_store
-- locks: nothing
-- $1: store id, $2: caller's id, $3: caller's role, $4: id after which the page begins, $5: limit
SELECT e.id, e.event_type, e.message, e.metadata, e.created_at
FROM storeplane.store_events AS e
JOIN storeplane.stores AS s ON s.id = e.store_id
WHERE e.store_id = $1::uuid AND (s.owner_id = $2::uuid OR $3::text IN ('operator', 'admin')) AND e.id > $4::bigint
ORDER BY e.id
LIMIT $5::integer
