-- How attempts begin and end, and the only doors through which a Job's pod reaches the tables. A door runs as the owner
-- with a pinned search_path and checks its caller itself: start_attempt by the attempt's token, the others by the
-- session key the pod made.

-- Ends an open attempt, and with a success the operation and what the store is. False when the attempt is not open any
-- more, or not in the state the caller saw. What follows an end without success is decided by whoever reads it next.
CREATE FUNCTION storeplane.end_attempt(
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

CREATE FUNCTION storeplane.start_attempt(
  p_operation uuid, p_number integer, p_token text, p_job_uid text, p_pod_uid text, p_session_key text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_operation storeplane.operations;
  v_attempt   storeplane.attempts;
  v_store     storeplane.stores;
BEGIN
  SELECT * INTO v_operation FROM storeplane.operations WHERE id = p_operation FOR NO KEY UPDATE;
  SELECT * INTO v_attempt FROM storeplane.attempts
   WHERE operation_id = p_operation AND number = p_number FOR NO KEY UPDATE;
  IF v_attempt.operation_id IS NULL OR v_attempt.token_hash IS DISTINCT FROM sha256(convert_to(p_token, 'UTF8')) THEN
    RETURN jsonb_build_object('answer', 'refused', 'reason', 'unknown attempt or wrong token');
  END IF;
  IF v_operation.cancel_requested_at IS NOT NULL THEN
    RETURN jsonb_build_object('answer', 'refused', 'reason', 'the operation is being cancelled');
  END IF;
  IF v_operation.state NOT IN ('queued', 'running') OR v_operation.attempt <> p_number
     OR v_attempt.finished_at IS NOT NULL THEN
    RETURN jsonb_build_object('answer', 'refused', 'reason', 'the attempt is over or superseded');
  END IF;
  IF v_attempt.job_uid IS NOT NULL AND v_attempt.job_uid <> p_job_uid THEN
    RETURN jsonb_build_object('answer', 'refused', 'reason', 'another Job belongs to this attempt');
  END IF;
  SELECT * INTO v_store FROM storeplane.stores WHERE id = v_operation.store_id;

  IF v_attempt.pod_uid IS NULL THEN
    UPDATE storeplane.stores SET may_have_objects = true
     WHERE id = v_operation.store_id AND v_operation.kind = 'create' AND NOT may_have_objects;
    UPDATE storeplane.attempts
       SET state = 'running', job_uid = p_job_uid, pod_uid = p_pod_uid,
           session_hash = sha256(convert_to(p_session_key, 'UTF8')),
           dispatched_at = coalesce(dispatched_at, now()), started_at = now()
     WHERE operation_id = p_operation AND number = p_number;
    UPDATE storeplane.operations
       SET state = 'running', fence = fence + 1, lease_holder = 'pod ' || p_pod_uid,
           lease_until = now() + interval '180 seconds', next_dispatch_at = NULL, waiting_reason = '',
           started_at = coalesce(started_at, now()),
           deadline_at = coalesce(deadline_at, now() + storeplane.time_allowed(kind))
     WHERE id = p_operation
    RETURNING * INTO v_operation;
    INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
    SELECT v_store.id, p_operation, e.event_type, e.message, jsonb_build_object('attempt', p_number)
      FROM (VALUES
        ('create', 'provisioning_started', format('Started provisioning %s store', v_store.engine)),
        ('delete', 'deleting', 'Removing the store'),
        ('cleanup', 'deleting', 'Removing what a failed creation left')
      ) AS e (kind, event_type, message)
     WHERE e.kind = v_operation.kind;
  ELSIF v_attempt.pod_uid <> p_pod_uid
     OR v_attempt.session_hash <> sha256(convert_to(p_session_key, 'UTF8')) THEN
    RETURN jsonb_build_object('answer', 'other_pod', 'reason', 'another process has begun this attempt');
  ELSE
    -- The answer was lost on its way: the pod counts its lease from the one it gets now.
    UPDATE storeplane.operations SET lease_until = now() + interval '180 seconds' WHERE id = p_operation;
  END IF;

  RETURN jsonb_build_object(
    'answer', 'start',
    'kind', v_operation.kind,
    'spec', v_operation.spec,
    'store', jsonb_build_object('id', v_store.id, 'name', v_store.name, 'engine', v_store.engine,
                                'namespace', v_store.namespace, 'namespace_uid', v_store.namespace_uid),
    'lease_seconds', 180,
    'seconds_left',
      greatest(0, least(600, floor(extract(epoch FROM v_operation.deadline_at - now())) - 60))::integer,
    'finished_phases', coalesce(
      (SELECT jsonb_agg(DISTINCT p.phase) FROM storeplane.phases AS p
        WHERE p.operation_id = p_operation AND p.finished_at IS NOT NULL), '[]'));
END
$$;

-- True when the key is the one the attempt's pod made and the attempt still runs; locks the operation's row, so that
-- nobody ends the attempt between this check and the caller's write.
CREATE FUNCTION storeplane.session_is_current(p_operation uuid, p_number integer, p_session_key text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM FROM storeplane.operations
    WHERE id = p_operation AND attempt = p_number AND state = 'running' FOR NO KEY UPDATE;
  RETURN FOUND AND EXISTS (
    SELECT FROM storeplane.attempts
     WHERE operation_id = p_operation AND number = p_number AND state = 'running'
       AND session_hash = sha256(convert_to(p_session_key, 'UTF8')));
END
$$;

-- Start or end of a phase, with its event; false when the session is not current any more. Safe to repeat.
-- `p_seconds_ago` is how long ago that was when the transaction began: a pod tells several of them at once, in their
-- order. A provisioner that does not say it tells each at once.
CREATE FUNCTION storeplane.report_event(
  p_operation uuid, p_number integer, p_session_key text, p_phase text, p_is_end boolean, p_detail jsonb,
  p_seconds_ago double precision DEFAULT 0
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_changed boolean;
  v_store   uuid;
  v_at      timestamptz;
BEGIN
  -- No attempt lasts longer; not-a-number is above every number.
  IF (p_seconds_ago BETWEEN 0 AND 3600) IS NOT TRUE THEN
    RAISE EXCEPTION 'a report is 0 to 3600 seconds old, not %', p_seconds_ago
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF NOT storeplane.session_is_current(p_operation, p_number, p_session_key) THEN
    RETURN false;
  END IF;
  -- Never before what happened before it: the pod's clock and its way here are not exact.
  SELECT o.store_id,
         greatest(now() - make_interval(secs => p_seconds_ago), a.started_at,
                  (SELECT max(coalesce(p.finished_at, p.started_at)) FROM storeplane.phases AS p
                    WHERE p.operation_id = p_operation AND p.number = p_number))
    INTO v_store, v_at
    FROM storeplane.operations AS o
    JOIN storeplane.attempts AS a ON a.operation_id = o.id AND a.number = p_number
   WHERE o.id = p_operation;
  IF p_is_end THEN
    IF p_phase = 'namespace' AND p_detail ->> 'uid' IS NOT NULL THEN
      UPDATE storeplane.stores SET namespace_uid = p_detail ->> 'uid' WHERE id = v_store;
    END IF;
    UPDATE storeplane.phases SET finished_at = v_at, detail = coalesce(p_detail, '{}')
     WHERE operation_id = p_operation AND number = p_number AND phase = p_phase AND finished_at IS NULL;
  ELSE
    INSERT INTO storeplane.phases (operation_id, number, phase, started_at, detail)
    VALUES (p_operation, p_number, p_phase, v_at, coalesce(p_detail, '{}'))
    ON CONFLICT ON CONSTRAINT phases_pkey DO NOTHING;
  END IF;
  v_changed := FOUND;
  IF v_changed THEN
    INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata, created_at)
    SELECT v_store, p_operation, e.event_type, e.message,
           coalesce(p_detail, '{}') || jsonb_build_object('phase', p_phase, 'attempt', p_number), v_at
      FROM (VALUES
        (CASE WHEN p_is_end THEN 'phase_completed' ELSE 'phase_started' END,
         format('Phase %s %s', p_phase, CASE WHEN p_is_end THEN 'completed' ELSE 'started' END)),
        (CASE WHEN p_is_end AND p_phase = 'namespace' THEN 'namespace_created' END, 'Namespace is ready'),
        (CASE WHEN p_is_end AND p_phase = 'release' THEN 'helm_installed' END, 'Chart is installed'),
        (CASE WHEN p_is_end AND p_phase = 'verify' THEN 'store_ready' END, 'Store answered with its products')
      ) AS e (event_type, message)
     WHERE e.event_type IS NOT NULL;
  END IF;
  RETURN true;
END
$$;

-- Renews the pod's lease. `go_on` false tells it to stop; `reason` says why.
CREATE FUNCTION storeplane.heartbeat(p_operation uuid, p_number integer, p_session_key text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_cancelled boolean;
BEGIN
  IF NOT storeplane.session_is_current(p_operation, p_number, p_session_key) THEN
    RETURN jsonb_build_object('go_on', false, 'reason', 'the attempt is over or superseded');
  END IF;
  UPDATE storeplane.operations SET lease_until = now() + interval '180 seconds'
   WHERE id = p_operation RETURNING cancel_requested_at IS NOT NULL INTO v_cancelled;
  RETURN jsonb_build_object(
    'go_on', NOT v_cancelled, 'reason', CASE WHEN v_cancelled THEN 'the operation is being cancelled' ELSE '' END);
END
$$;

-- The pod's last word. A word that comes too late is audited and changes nothing.
CREATE FUNCTION storeplane.finish_attempt(
  p_operation uuid, p_number integer, p_session_key text, p_outcome text, p_result jsonb, p_problem jsonb
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF p_outcome NOT IN ('succeeded', 'retryable', 'permanent') THEN
    RAISE EXCEPTION 'unknown outcome %', p_outcome USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF NOT storeplane.session_is_current(p_operation, p_number, p_session_key) THEN
    -- The same word twice is an answer that was lost on its way, not a late report.
    IF EXISTS (SELECT FROM storeplane.attempts
                WHERE operation_id = p_operation AND number = p_number AND outcome = p_outcome
                  AND session_hash = sha256(convert_to(p_session_key, 'UTF8'))) THEN
      RETURN true;
    END IF;
    INSERT INTO storeplane.audit_log (store_id, action, details)
    SELECT o.store_id, 'attempt.late_report',
           jsonb_build_object('operation_id', p_operation, 'attempt', p_number, 'outcome', p_outcome)
      FROM storeplane.operations AS o
      JOIN storeplane.attempts AS a ON a.operation_id = o.id AND a.number = p_number
       AND a.session_hash = sha256(convert_to(p_session_key, 'UTF8'))
     WHERE o.id = p_operation;
    RETURN false;
  END IF;
  RETURN storeplane.end_attempt(p_operation, p_number, 'running',
                                CASE WHEN p_outcome = 'succeeded' THEN 'succeeded' ELSE 'failed' END,
                                p_outcome, NULL, p_result, p_problem);
END
$$;
