-- purpose: A page of the attempts that are open, not harvested or whose pods have not ended, oldest first
-- rows: up to the limit
-- caller: reconciler
-- index: attempts_unsettled, or attempts_pkey when operations are named
-- locks: nothing
-- $1: created_at, $2: operation id and $3: number after which the page begins, null for the first, $4: limit,
-- $5: operations to look at alone, null for all, $6: cluster
-- A pod could not renew its lease while the server was away: after its start every lease holds once more.
SELECT a.operation_id, a.number, a.state, a.job_name, a.job_uid, a.pod_uid, a.outcome, a.created_at, a.dispatched_at,
       a.finished_at, a.end_seen_at, a.harvested_at, a.pods_ended_at, o.kind, o.state AS operation_state,
       o.attempt = a.number AS is_newest, o.cancel_requested_at, o.waiting_reason,
       greatest(o.lease_until, CASE WHEN a.pod_uid IS NOT NULL
                               THEN pg_postmaster_start_time() + interval '180 seconds' END) AS lease_until,
       s.namespace, now() AS now
FROM storeplane.attempts AS a
JOIN storeplane.operations AS o ON o.id = a.operation_id
JOIN storeplane.stores AS s ON s.id = o.store_id
WHERE (a.harvested_at IS NULL OR a.pods_ended_at IS NULL) AND o.cluster_id = $6::text
  AND ($5::uuid[] IS NULL OR a.operation_id = ANY ($5::uuid[]))
  AND ($1::timestamptz IS NULL
       OR (a.created_at, a.operation_id, a.number) > ($1::timestamptz, $2::uuid, $3::integer))
ORDER BY a.created_at, a.operation_id, a.number
LIMIT $4::integer
