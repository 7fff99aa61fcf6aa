-- purpose: Wait for whoever is at an operation, so that the next statement sees what it did
-- rows: one, or none for an unknown id
-- caller: dispatcher and reconciler, before a statement that ends the operation with its attempt
-- index: operations_pkey
-- locks: the operation's row
-- $1: operation id
-- A statement that waits for this lock by itself would go on with what it saw before: an attempt that was opened or
-- dispatched meanwhile would stay open on an operation that is over.
SELECT o.id FROM storeplane.operations AS o WHERE o.id = $1::uuid FOR NO KEY UPDATE
