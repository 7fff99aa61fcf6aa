-- purpose: Let a claimed operation wait, with the reason a person reads
-- rows: one, or none when the claim is lost
-- caller: dispatcher
-- index: operations_pkey
-- locks: the operation's row
-- $1: operation id, $2: fence, $3: reason, $4: seconds to wait
UPDATE storeplane.operations AS o
SET lease_until = NULL, lease_holder = NULL, next_dispatch_at = now() + make_interval(secs => $4::double precision),
    waiting_since = CASE WHEN o.waiting_reason = $3::text THEN o.waiting_since ELSE now() END,
    waiting_reason = $3::text
WHERE o.id = $1::uuid AND o.fence = $2::bigint AND o.state IN ('queued', 'running') AND o.next_dispatch_at IS NOT NULL
RETURNING o.id
