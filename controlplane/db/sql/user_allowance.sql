-- purpose: What a user may still order: stores, and creates in this minute
-- rows: zero or one
-- caller: services.stores, to say why a create was refused
-- index: users_pkey
-- locks: nothing
-- $1: user id, $2: creates a minute
SELECT u.max_stores, u.store_count,
       greatest(0, floor(extract(epoch FROM now() + interval '1 minute' - greatest(u.creates_until, now()))
                         * $2::integer / 60))::integer AS creates_left,
       ceil(extract(epoch FROM greatest(u.creates_until, now()) - now()))::integer AS reset_seconds,
       greatest(1, ceil(extract(epoch FROM u.creates_until + interval '1 minute' / $2::integer - interval '1 minute'
                                - now())))::integer AS retry_after_seconds
FROM storeplane.users AS u
WHERE u.id = $1::uuid
