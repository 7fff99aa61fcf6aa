-- purpose: Which of the Jobs seen in the cluster belong to an attempt, and to which Job the attempt says it has
-- rows: one for each attempt that exists
-- caller: reconciler's sweep
-- index: attempts_job_name_unique
-- locks: nothing
-- $1: Jobs' names
SELECT a.job_name, a.job_uid, a.state, a.harvested_at IS NOT NULL AS is_harvested
FROM storeplane.attempts AS a
WHERE a.job_name = ANY ($1::text[])
