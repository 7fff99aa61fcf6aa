-- What a store is by order: its size, and its host, which no other store has. What it turned out to be: the flavour of its
-- engine, as the shop itself told it.

ALTER TABLE storeplane.stores
  ADD COLUMN plan text NOT NULL DEFAULT 'small',
  -- Null for stores that a replica of the version before accepts meanwhile: theirs are made of their namespaces.
  ADD COLUMN host text CONSTRAINT stores_host_length CHECK (char_length(host) <= 253),
  -- Null until the shop has answered once.
  ADD COLUMN engine_flavour text CONSTRAINT stores_engine_flavour_length
                                 CHECK (char_length(engine_flavour) BETWEEN 1 AND 32);
UPDATE storeplane.stores AS s
   SET host = (SELECT o.spec ->> 'host' FROM storeplane.operations AS o
                WHERE o.store_id = s.id AND o.kind = 'create' ORDER BY o.created_at, o.id LIMIT 1)
 WHERE s.state <> 'deleted';
-- A deleted store's host is free again at once: the last thing of it that went was its namespace with the Ingress.
CREATE UNIQUE INDEX stores_host_unique ON storeplane.stores (host) WHERE state <> 'deleted';

-- Ends an open attempt, and with a success the operation and what the store is. False when the attempt is not open any
-- more, or not in the state the caller saw. What follows an end without success is decided by whoever reads it next.
CREATE OR REPLACE FUNCTION storeplane.end_attempt(
  p_operation uuid, p_number integer, p_seen_state text, p_state text, p_outcome text, p_exit_code integer,
  p_result jsonb, p_problem jsonb
) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_operation storeplane.operations;
  v_store     storeplane.stores;
BEGIN
  SELECT * INTO v_operation FROM storeplane.operations
   WHERE id = p_operation AND attempt = p_number FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  PERFORM FROM storeplane.attempts
    WHERE operation_id = p_operation AND number = p_number AND finished_at IS NULL
      AND (p_seen_state IS NULL OR state = p_seen_state);
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF v_operation.finished_at IS NOT NULL AND p_state = 'succeeded' THEN
    -- The operation is over: what is left open is only closed.
    RETURN false;
  END IF;
  IF p_state = 'succeeded' THEN
    -- Stores and users before attempts: the order of locks.
    UPDATE storeplane.stores AS s
       SET state = CASE v_operation.kind WHEN 'create' THEN 'ready' WHEN 'delete' THEN 'deleted' ELSE s.state END,
           namespace_uid = CASE WHEN v_operation.kind IN ('delete', 'cleanup') THEN NULL ELSE s.namespace_uid END,
           engine_flavour = CASE v_operation.kind
             WHEN 'create' THEN left(nullif(p_result ->> 'engine_flavour', ''), 32) ELSE s.engine_flavour END,
           may_have_objects = s.may_have_objects AND v_operation.kind NOT IN ('delete', 'cleanup'),
           updated_at = now()
     WHERE s.id = v_operation.store_id
       AND s.state IN ('provisioning', 'failed', 'deleting')
       -- A create that ends while its store is being deleted changes nothing of it.
       AND (v_operation.kind <> 'create' OR s.state = 'provisioning')
    RETURNING s.* INTO v_store;
    IF v_store.state = 'deleted' THEN
      UPDATE storeplane.users SET store_count = store_count - 1 WHERE id = v_store.owner_id;
    END IF;
  END IF;
  UPDATE storeplane.attempts
     SET state = p_state, outcome = p_outcome, exit_code = p_exit_code, result = p_result, problem = p_problem,
         finished_at = now()
   WHERE operation_id = p_operation AND number = p_number;
  UPDATE storeplane.operations AS o
     SET lease_until = NULL, lease_holder = NULL, next_dispatch_at = NULL,
         state = CASE WHEN p_state = 'succeeded' THEN 'succeeded' ELSE o.state END,
         result = CASE WHEN p_state = 'succeeded' THEN p_result ELSE o.result END,
         finished_at = CASE WHEN p_state = 'succeeded' THEN now() ELSE o.finished_at END
   WHERE o.id = p_operation;
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT v_store.id, p_operation, e.event_type, e.message, jsonb_build_object('attempt', p_number)
    FROM (VALUES
      ('create', 'provisioning_completed',
       format('Store is ready at %s', coalesce(v_store.urls ->> 'storefront', v_store.urls ->> 'api'))),
      ('delete', 'deleted', 'Store is deleted')
    ) AS e (kind, event_type, message)
   WHERE e.kind = v_operation.kind AND v_store.id IS NOT NULL;
  RETURN true;
END
$$;
