-- Who may do what: storeplane_app reads and writes rows, storeplane_provisioner may only call its four doors.

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
GRANT SELECT ON storeplane.schema_migrations, storeplane.phases TO storeplane_app;
GRANT SELECT, INSERT, UPDATE ON storeplane.clusters TO storeplane_app;
GRANT SELECT, UPDATE ON storeplane.user_slots TO storeplane_app;
GRANT SELECT, INSERT, UPDATE ON
  storeplane.users, storeplane.stores, storeplane.operations, storeplane.attempts TO storeplane_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON storeplane.idempotency_keys TO storeplane_app;
GRANT SELECT, INSERT ON
  storeplane.store_events, storeplane.audit_log, storeplane.attempt_logs TO storeplane_app;
GRANT USAGE ON SEQUENCE storeplane.store_events_id TO storeplane_app;
GRANT EXECUTE ON FUNCTION
  storeplane.end_attempt(uuid, integer, text, text, text, integer, jsonb, jsonb),
  storeplane.keep_partitions(integer, integer),
  storeplane.time_allowed(text)
  TO storeplane_app;
GRANT EXECUTE ON FUNCTION
  storeplane.start_attempt(uuid, integer, text, text, text, text),
  storeplane.report_event(uuid, integer, text, text, boolean, jsonb, double precision),
  storeplane.heartbeat(uuid, integer, text),
  storeplane.finish_attempt(uuid, integer, text, text, jsonb, jsonb)
  TO storeplane_provisioner;
