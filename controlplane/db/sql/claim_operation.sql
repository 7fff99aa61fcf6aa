-- purpose: Take the next operation to dispatch and open its attempt, or take over an open one whose lease ran out
-- rows: zero or one
-- caller: dispatcher
-- index: operations_queued finds the queued rows; all of them are read and sorted, since users' turns order them
-- locks: the operation's row (SKIP LOCKED)
-- $1: name of the claiming process, $2: lease in seconds
-- The lease stands on the operation's own row: a second claimer that waited for nothing re-reads it after the first
-- one's commit and sees the lease, whatever its own snapshot says. The user's turn is spent when the Job is recorded:
-- a claim that is given back costs none, and claimers do not wait for each other at the user's row.
WITH candidate AS MATERIALIZED (
  SELECT o.id
  FROM storeplane.operations AS o
  JOIN storeplane.users AS u ON u.id = o.owner_id
  WHERE o.state = 'queued' AND o.next_dispatch_at <= now() AND (o.lease_until IS NULL OR o.lease_until < now())
  ORDER BY u.last_served_at, o.created_at, o.id
  LIMIT 1
  FOR UPDATE OF o SKIP LOCKED
), claimed AS (
  UPDATE storeplane.operations AS o
  SET fence = o.fence + 1, lease_holder = $1::text, lease_until = now() + make_interval(secs => $2::integer),
      attempt = CASE WHEN EXISTS (
          SELECT FROM storeplane.attempts AS a
          WHERE a.operation_id = o.id AND a.number = o.attempt AND a.state = 'created'
        ) THEN o.attempt ELSE o.attempt + 1 END
  FROM candidate
  WHERE o.id = candidate.id
  RETURNING o.id, o.store_id, o.owner_id, o.kind, o.attempt, o.fence, o.spec, o.request_id,
            format('store-%s-%s-%s', o.kind, o.id, o.attempt) AS job_name
), opened AS (
  INSERT INTO storeplane.attempts (operation_id, number, job_name)
  SELECT c.id, c.attempt, c.job_name FROM claimed AS c
  ON CONFLICT ON CONSTRAINT attempts_pkey DO NOTHING
)
SELECT c.id AS operation_id, c.store_id, c.owner_id, s.name AS store_name, s.engine, s.namespace, c.kind,
       c.attempt AS number, c.job_name, c.fence, c.spec, c.request_id, a.manifest, a.token_key_id
FROM claimed AS c
JOIN storeplane.stores AS s ON s.id = c.store_id
LEFT JOIN storeplane.attempts AS a ON a.operation_id = c.id AND a.number = c.attempt
