-- purpose: Whether a claim could find anything, without taking a lock
-- rows: one
-- caller: dispatcher, before it claims
-- index: operations_to_dispatch
-- locks: nothing
-- $1: cluster
SELECT EXISTS (
  SELECT FROM storeplane.operations AS o
  WHERE o.cluster_id = $1::text AND o.next_dispatch_at <= now() AND (o.lease_until IS NULL OR o.lease_until < now())
) AS is_due
