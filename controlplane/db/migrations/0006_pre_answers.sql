-- What accepting needs to remember: how fast a user orders stores, and first answers as the bytes they were.

-- The moment until which the user's creates have used up their rate (a leaky bucket in one column): counted here, N
-- replicas share one budget, and the row is locked for store_count in the same statement anyway.
ALTER TABLE storeplane.users ADD COLUMN creates_until timestamptz NOT NULL DEFAULT 'epoch';

-- jsonb orders keys its own way; a replay repeats the first answer byte for byte.
ALTER TABLE storeplane.idempotency_keys ALTER COLUMN answer TYPE text USING answer::text;
