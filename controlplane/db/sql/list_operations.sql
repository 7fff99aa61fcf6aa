-- purpose: The ids of a page of operations, newest first, as far as the caller may see them
-- rows: up to the limit
-- caller: services.operations, which reads them with read_operations
-- index: operations_by_store, operations_newest or operations_of_owner
-- locks: nothing
-- $1: caller's id, $2: caller's role, $3: store or null, $4: state or null, $5: kind or null,
-- $6: created_at and $7: id of the row before the page, or null, $8: limit
-- Three branches rather than one OR: each keeps its own index, whoever asks and whatever plan is cached.
(SELECT o.id, o.created_at FROM storeplane.operations AS o
 WHERE o.store_id = $3::uuid AND ($2::text IN ('operator', 'admin') OR o.owner_id = $1::uuid)
   AND ($4::text IS NULL OR o.state = $4::text) AND ($5::text IS NULL OR o.kind = $5::text)
   AND ($6::timestamptz IS NULL OR (o.created_at, o.id) < ($6::timestamptz, $7::uuid))
 ORDER BY o.created_at DESC, o.id DESC LIMIT $8::integer)
UNION ALL
(SELECT o.id, o.created_at FROM storeplane.operations AS o
 WHERE $3::uuid IS NULL AND $2::text IN ('operator', 'admin')
   AND ($4::text IS NULL OR o.state = $4::text) AND ($5::text IS NULL OR o.kind = $5::text)
   AND ($6::timestamptz IS NULL OR (o.created_at, o.id) < ($6::timestamptz, $7::uuid))
 ORDER BY o.created_at DESC, o.id DESC LIMIT $8::integer)
UNION ALL
(SELECT o.id, o.created_at FROM storeplane.operations AS o
 WHERE $3::uuid IS NULL AND $2::text NOT IN ('operator', 'admin') AND o.owner_id = $1::uuid
   AND ($4::text IS NULL OR o.state = $4::text) AND ($5::text IS NULL OR o.kind = $5::text)
   AND ($6::timestamptz IS NULL OR (o.created_at, o.id) < ($6::timestamptz, $7::uuid))
 ORDER BY o.created_at DESC, o.id DESC LIMIT $8::integer)
