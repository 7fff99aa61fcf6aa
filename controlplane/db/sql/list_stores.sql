-- purpose: A page of stores with their newest operations, newest first, as far as the caller may see them
-- rows: up to the limit
-- caller: services.stores
-- index: stores_newest or stores_of_owner, operations_by_store
-- locks: nothing
-- $1: caller's id, $2: caller's role, $3: state or null for all that are not deleted, $4: engine or null,
-- $5: created_at and $6: id of the row before the page, or null, $7: limit
-- Two branches rather than one OR: each keeps its own index, whoever asks and whatever plan is cached.
WITH page AS (
  (SELECT s.id, s.created_at FROM storeplane.stores AS s
   WHERE $2::text IN ('operator', 'admin')
     AND ($3::text IS NULL AND s.state <> 'deleted' OR s.state = $3::text)
     AND ($4::text IS NULL OR s.engine = $4::text)
     AND ($5::timestamptz IS NULL OR (s.created_at, s.id) < ($5::timestamptz, $6::uuid))
   ORDER BY s.created_at DESC, s.id DESC LIMIT $7::integer)
  UNION ALL
  (SELECT s.id, s.created_at FROM storeplane.stores AS s
   WHERE $2::text NOT IN ('operator', 'admin') AND s.owner_id = $1::uuid
     AND ($3::text IS NULL AND s.state <> 'deleted' OR s.state = $3::text)
     AND ($4::text IS NULL OR s.engine = $4::text)
     AND ($5::timestamptz IS NULL OR (s.created_at, s.id) < ($5::timestamptz, $6::uuid))
   ORDER BY s.created_at DESC, s.id DESC LIMIT $7::integer)
)
SELECT s.id, s.owner_id, s.name, s.slug, s.engine, s.engine_flavour, s.plan, s.state, s.namespace, s.urls,
       s.created_at, s.updated_at, newest.id AS operation_id
FROM page
JOIN storeplane.stores AS s ON s.id = page.id
LEFT JOIN LATERAL (
  SELECT o.id FROM storeplane.operations AS o
  WHERE o.store_id = s.id ORDER BY o.created_at DESC, o.id DESC LIMIT 1
) AS newest ON true
ORDER BY page.created_at DESC, page.id DESC
