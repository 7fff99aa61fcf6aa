-- purpose: Make the coming months' partitions of events and logs, and drop those kept long enough
-- rows: one
-- caller: reconciler's sweep
-- index: none
-- locks: the partitioned tables, for a moment, when there is something to do
-- $1: months of events, $2: months of logs
SELECT storeplane.keep_partitions($1::integer, $2::integer) AS changed
