-- purpose: Forget idempotency keys that are older than any client retries
-- rows: none
-- caller: reconciler's sweep
-- index: idempotency_keys_by_age
-- locks: the rows
-- $1: seconds
DELETE FROM storeplane.idempotency_keys AS k
WHERE k.created_at < now() - make_interval(secs => $1::double precision)
