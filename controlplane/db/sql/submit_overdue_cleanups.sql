-- purpose: Order the clean-up of stores whose creation failed longer ago than their objects are kept
-- rows: one for each
-- caller: reconciler's sweep
-- index: stores_failed, operations_by_store, operations_one_active
-- locks: the new rows
-- $1: seconds, $2: ids for the clean-ups, as many as may be made at once, $3: cluster
WITH overdue AS (
  SELECT s.id, s.owner_id, s.cluster_id, row_number() OVER (ORDER BY s.updated_at) AS place
  FROM storeplane.stores AS s
  WHERE s.state = 'failed' AND s.may_have_objects AND s.cluster_id = $3::text
    AND s.updated_at < now() - make_interval(secs => $1::double precision)
    AND NOT EXISTS (
      SELECT FROM storeplane.operations AS o WHERE o.store_id = s.id
        AND (o.state IN ('queued', 'running')
             OR o.finished_at > now() - make_interval(secs => $1::double precision)))
  ORDER BY s.updated_at
  LIMIT cardinality($2::uuid[])
)
INSERT INTO storeplane.operations (id, store_id, owner_id, cluster_id, kind, spec, request_id)
SELECT ($2::uuid[])[overdue.place], overdue.id, overdue.owner_id, overdue.cluster_id, 'cleanup', newest.spec,
       newest.request_id
FROM overdue
CROSS JOIN LATERAL (
  SELECT o.spec, o.request_id FROM storeplane.operations AS o
  WHERE o.store_id = overdue.id ORDER BY o.created_at DESC, o.id DESC LIMIT 1
) AS newest
ON CONFLICT DO NOTHING
RETURNING id
