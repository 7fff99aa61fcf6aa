-- purpose: One operation with its place in the queue, if the caller may see it
-- rows: zero or one
-- caller: services.operations
-- index: operations_pkey, attempts_pkey; operations_queued for the position
-- locks: nothing
-- $1: operation id, $2: caller's id, $3: caller's role
-- The position follows the claim's order, played to its end: users take turns, the one least recently served begins,
-- and each turn takes the user's oldest.
SELECT o.id, o.store_id, o.kind, o.state, o.attempt, o.waiting_reason, o.waiting_since, o.error, o.created_at,
       o.started_at, o.finished_at,
       o.state = 'queued' OR (o.state = 'running' AND a.state = 'dispatched' AND o.waiting_reason <> '') AS is_waiting,
       CASE WHEN o.state = 'queued' THEN (
         SELECT placed.position
         FROM (
           SELECT queue.id, row_number() OVER (
                    ORDER BY queue.turn, queue.last_served_at, queue.first_at, queue.first_id
                  ) AS position
           FROM (
             SELECT q.id, u.last_served_at, row_number() OVER mine AS turn,
                    first_value(q.created_at) OVER mine AS first_at, first_value(q.id) OVER mine AS first_id
             FROM storeplane.operations AS q
             JOIN storeplane.users AS u ON u.id = q.owner_id
             WHERE q.state = 'queued'
             WINDOW mine AS (PARTITION BY q.owner_id ORDER BY q.created_at, q.id)
           ) AS queue
         ) AS placed
         WHERE placed.id = o.id
       ) END AS position
FROM storeplane.operations AS o
LEFT JOIN storeplane.attempts AS a ON a.operation_id = o.id AND a.number = o.attempt
WHERE o.id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text IN ('operator', 'admin'))
