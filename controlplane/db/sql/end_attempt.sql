-- purpose: End an open attempt by what was observed; a success ends operation and store with it
-- rows: one
-- caller: reconciler; services.operations for a person's retry
-- index: operations_pkey, attempts_pkey, stores_pkey
-- locks: the operation's row, then the store's, the attempt's, the cluster's and the user's slots
-- $1: operation id, $2: attempt, $3: expected state, null for any, $4: new state, $5: outcome, $6: exit code,
-- $7: result, $8: problem
SELECT storeplane.end_attempt($1::uuid, $2::integer, $3::text, $4::text, $5::text, $6::integer, $7::jsonb, $8::jsonb)
       AS is_ended
