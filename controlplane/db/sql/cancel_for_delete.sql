-- purpose: Ask whatever a store is busy with to end, because the store is to be deleted
-- rows: one for each operation, asked now or before
-- caller: services.stores, with submit_delete and finish_cancel in the same transaction
-- index: operations_one_active
-- locks: the operation's row, then the user's slots
-- $1: store id, $2: caller's id, $3: caller's role
UPDATE storeplane.operations AS o
SET cancel_requested_at = coalesce(o.cancel_requested_at, now()), next_dispatch_at = NULL
WHERE o.store_id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text = 'admin')
  AND o.state IN ('queued', 'running') AND o.kind <> 'delete'
RETURNING o.id
