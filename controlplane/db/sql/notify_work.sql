-- purpose: Tell the other processes that there is something to claim
-- rows: one
-- caller: db.notifications
-- index: none
-- locks: the notification queue, for a moment
SELECT pg_notify('storeplane_work', '')
