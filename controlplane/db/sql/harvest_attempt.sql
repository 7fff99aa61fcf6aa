-- purpose: Keep an ended attempt's log and diagnosis, once
-- rows: one, or none when another process was first
-- caller: reconciler
-- index: attempts_pkey
-- locks: the attempt's row
-- $1: operation id, $2: attempt, $3: exit code, $4: log, null when there is none, $5: diagnosis, null when there is
-- none, $6: whether its pods have ended
WITH harvested AS (
  UPDATE storeplane.attempts AS a
  SET harvested_at = now(), exit_code = coalesce(a.exit_code, $3::integer), diagnosis = $5::jsonb,
      pods_ended_at = CASE WHEN $6::boolean THEN coalesce(a.pods_ended_at, now()) ELSE a.pods_ended_at END,
      log_state = CASE WHEN $4::text IS NULL THEN 'unavailable' ELSE 'stored' END
  WHERE a.operation_id = $1::uuid AND a.number = $2::integer AND a.harvested_at IS NULL AND a.finished_at IS NOT NULL
  RETURNING a.operation_id, a.number
), log AS (
  INSERT INTO storeplane.attempt_logs (operation_id, number, content)
  SELECT harvested.operation_id, harvested.number, $4::text FROM harvested WHERE $4::text IS NOT NULL
)
SELECT o.state = 'running' AND o.attempt = harvested.number AS is_followed
FROM harvested
JOIN storeplane.operations AS o ON o.id = harvested.operation_id
