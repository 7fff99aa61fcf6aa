-- purpose: Which Jobs attempts have by now, when recording ours found them moved on
-- rows: one for each attempt
-- caller: dispatcher, reconciler, reattach
-- index: attempts_pkey
-- locks: nothing
-- $1: operation ids, $2: attempts
SELECT a.operation_id, a.number, a.job_uid
FROM storeplane.attempts AS a
JOIN unnest($1::uuid[], $2::integer[]) AS m (operation_id, number)
  ON a.operation_id = m.operation_id AND a.number = m.number
