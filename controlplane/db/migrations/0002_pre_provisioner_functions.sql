-- The only doors through which a Job's pod reaches the tables. Each runs as the owner with a pinned search_path and
-- checks its caller itself: start_attempt by the attempt's token, the others by the session key the pod made.

CREATE FUNCTION storeplane.start_attempt(
  p_operation uuid, p_number integer, p_token text, p_job_uid text, p_pod_uid text, p_session_key text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_operation storeplane.operations;
  v_attempt   storeplane.attempts;
  v_answer    jsonb;
BEGIN
  -- Operation before attempt, as every other writer does, so that two of them cannot wait for each other.
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
     OR v_attempt.state NOT IN ('created', 'dispatched', 'running') THEN
    RETURN jsonb_build_object('answer', 'refused', 'reason', 'the attempt is over or superseded');
  END IF;
  IF v_attempt.job_uid IS NOT NULL AND v_attempt.job_uid <> p_job_uid THEN
    RETURN jsonb_build_object('answer', 'refused', 'reason', 'another Job belongs to this attempt');
  END IF;

  IF v_attempt.pod_uid IS NULL THEN
    UPDATE storeplane.attempts
       SET state = 'running', job_uid = p_job_uid, pod_uid = p_pod_uid,
           session_hash = sha256(convert_to(p_session_key, 'UTF8')),
           dispatched_at = coalesce(dispatched_at, now()), started_at = now()
     WHERE operation_id = p_operation AND number = p_number;
    UPDATE storeplane.operations
       SET state = 'running', fence = fence + 1, lease_holder = 'pod ' || p_pod_uid,
           lease_until = now() + interval '180 seconds',
           started_at = coalesce(started_at, now()), deadline_at = coalesce(deadline_at, now() + interval '15 minutes')
     WHERE id = p_operation
    RETURNING * INTO v_operation;
    IF v_attempt.state = 'created' THEN
      -- Faster than the dispatcher, whose recording of the Job would have spent the user's turn.
      UPDATE storeplane.users SET last_served_at = now() WHERE id = v_operation.owner_id;
    END IF;
    INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
    SELECT s.id, p_operation, 'provisioning_started', format('Started provisioning %s store', s.engine),
           jsonb_build_object('attempt', p_number)
      FROM storeplane.stores AS s WHERE s.id = v_operation.store_id;
  ELSIF v_attempt.pod_uid <> p_pod_uid
     OR v_attempt.session_hash <> sha256(convert_to(p_session_key, 'UTF8')) THEN
    RETURN jsonb_build_object('answer', 'other_pod', 'reason', 'another process has begun this attempt');
  END IF;

  SELECT jsonb_build_object(
           'answer', 'start',
           'spec', v_operation.spec,
           'lease_seconds', 180,
           'seconds_left',
             greatest(0, least(600, floor(extract(epoch FROM v_operation.deadline_at - now())) - 60))::integer,
           'finished_phases', coalesce(
             (SELECT jsonb_agg(DISTINCT p.phase) FROM storeplane.phases AS p
               WHERE p.operation_id = p_operation AND p.finished_at IS NOT NULL), '[]'))
    INTO v_answer;
  RETURN v_answer;
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
CREATE FUNCTION storeplane.report_event(
  p_operation uuid, p_number integer, p_session_key text, p_phase text, p_is_end boolean, p_detail jsonb
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_changed boolean;
  v_store   uuid;
BEGIN
  IF NOT storeplane.session_is_current(p_operation, p_number, p_session_key) THEN
    RETURN false;
  END IF;
  IF p_is_end THEN
    UPDATE storeplane.phases SET finished_at = now(), detail = coalesce(p_detail, '{}')
     WHERE operation_id = p_operation AND number = p_number AND phase = p_phase AND finished_at IS NULL;
  ELSE
    INSERT INTO storeplane.phases (operation_id, number, phase, detail)
    VALUES (p_operation, p_number, p_phase, coalesce(p_detail, '{}'))
    ON CONFLICT ON CONSTRAINT phases_pkey DO NOTHING;
  END IF;
  v_changed := FOUND;
  SELECT store_id INTO v_store FROM storeplane.operations WHERE id = p_operation;
  IF v_changed THEN
    INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
    SELECT v_store, p_operation, e.event_type, e.message,
           coalesce(p_detail, '{}') || jsonb_build_object('phase', p_phase, 'attempt', p_number)
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

-- The pod's last word. A success ends operation and store at once; what follows a failure is the reconciler's choice.
-- A word that comes too late is audited and changes nothing.
CREATE FUNCTION storeplane.finish_attempt(
  p_operation uuid, p_number integer, p_session_key text, p_outcome text, p_result jsonb, p_problem jsonb
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_store storeplane.stores;
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
  UPDATE storeplane.attempts
     SET state = CASE WHEN p_outcome = 'succeeded' THEN 'succeeded' ELSE 'failed' END,
         outcome = p_outcome, result = p_result, problem = p_problem, finished_at = now()
   WHERE operation_id = p_operation AND number = p_number;
  UPDATE storeplane.operations SET lease_until = NULL, lease_holder = NULL WHERE id = p_operation;
  IF p_outcome <> 'succeeded' THEN
    RETURN true;
  END IF;
  UPDATE storeplane.operations SET state = 'succeeded', result = p_result, finished_at = now() WHERE id = p_operation;
  UPDATE storeplane.stores AS s SET state = 'ready', updated_at = now()
    FROM storeplane.operations AS o
   WHERE o.id = p_operation AND s.id = o.store_id AND s.state = 'provisioning'
  RETURNING s.* INTO v_store;
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT v_store.id, p_operation, 'provisioning_completed',
         format('Store is ready at %s', coalesce(v_store.urls ->> 'storefront', v_store.urls ->> 'api')),
         jsonb_build_object('attempt', p_number)
   WHERE v_store.id IS NOT NULL;
  RETURN true;
END
$$;

-- Roles belong to the server, not to this database: another database may have made them already, or be making them now.
DO $$
DECLARE
  v_role text;
BEGIN
  FOREACH v_role IN ARRAY ARRAY['storeplane_app', 'storeplane_provisioner'] LOOP
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_role) THEN
        EXECUTE format('CREATE ROLE %I LOGIN', v_role);
      END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END LOOP;
  -- Public's right to make temporary tables is a right to fill the disk.
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO storeplane_app, storeplane_provisioner', current_database());
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA storeplane FROM PUBLIC;
GRANT USAGE ON SCHEMA storeplane TO storeplane_app, storeplane_provisioner;
GRANT SELECT ON storeplane.clusters, storeplane.schema_migrations TO storeplane_app;
GRANT SELECT, INSERT, UPDATE ON
  storeplane.users, storeplane.stores, storeplane.operations, storeplane.attempts TO storeplane_app;
GRANT SELECT, INSERT ON
  storeplane.store_events, storeplane.audit_log, storeplane.attempt_logs TO storeplane_app;
GRANT SELECT ON storeplane.phases TO storeplane_app;
GRANT EXECUTE ON FUNCTION
  storeplane.start_attempt(uuid, integer, text, text, text, text),
  storeplane.report_event(uuid, integer, text, text, boolean, jsonb),
  storeplane.heartbeat(uuid, integer, text),
  storeplane.finish_attempt(uuid, integer, text, text, jsonb, jsonb)
  TO storeplane_provisioner;
