-- purpose: One operation with its place in the queue, if the caller may see it
-- rows: zero or one
-- caller: services.operations
-- index: operations_pkey; operations_queued for the position
-- locks: nothing
-- $1: operation id, $2: caller's id, $3: caller's role
SELECT o.id, o.store_id, o.kind, o.state, o.attempt, o.waiting_reason, o.waiting_since, o.error, o.created_at,
       o.started_at, o.finished_at,
       CASE WHEN o.state = 'queued' THEN (
         SELECT count(*) FROM storeplane.operations AS q
         WHERE q.state = 'queued' AND (q.created_at, q.id) <= (o.created_at, o.id)
       ) END AS position
FROM storeplane.operations AS o
WHERE o.id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text IN ('operator', 'admin'))
