-- What is only ever added: events, logs, audit. Events and logs are partitioned by month, so that the old ones go by
-- dropping a table.

CREATE SEQUENCE storeplane.store_events_id;

CREATE TABLE storeplane.store_events (
  id           bigint      NOT NULL DEFAULT nextval('storeplane.store_events_id'),
  store_id     uuid        NOT NULL CONSTRAINT store_events_store_fkey REFERENCES storeplane.stores,
  operation_id uuid        CONSTRAINT store_events_operation_fkey REFERENCES storeplane.operations,
  event_type   text        NOT NULL CONSTRAINT store_events_type_known CHECK (event_type IN (
                             'created', 'namespace_created', 'provisioning_started', 'phase_started',
                             'phase_completed', 'helm_installed', 'store_ready', 'provisioning_completed',
                             'provisioning_failed', 'timeout', 'retry_scheduled', 'reattached', 'cancelled',
                             'upgrade_started', 'upgrade_completed', 'upgrade_failed', 'rollback_started',
                             'rollback_completed', 'rollback_failed', 'deleting', 'deleted')),
  message      text        NOT NULL,
  metadata     jsonb       NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT store_events_pkey PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX store_events_by_store ON storeplane.store_events (store_id, id);

CREATE TABLE storeplane.attempt_logs (
  operation_id uuid        NOT NULL,
  number       integer     NOT NULL,
  content      text        NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT attempt_logs_pkey PRIMARY KEY (operation_id, number, created_at),
  CONSTRAINT attempt_logs_attempt_fkey FOREIGN KEY (operation_id, number) REFERENCES storeplane.attempts
) PARTITION BY RANGE (created_at);

-- Rows for a month nobody has made a partition for are kept here rather than refused.
CREATE TABLE storeplane.store_events_rest PARTITION OF storeplane.store_events DEFAULT;
CREATE TABLE storeplane.attempt_logs_rest PARTITION OF storeplane.attempt_logs DEFAULT;

-- Makes the partitions of this month and the two after it, and drops those whose month lies further back than is kept.
-- Returns how many tables were made and dropped. Safe to repeat and to run twice at once.
CREATE FUNCTION storeplane.keep_partitions(p_event_months integer, p_log_months integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_kept    record;
  v_month   date;
  v_name    text;
  v_child   regclass;
  v_changed integer := 0;
BEGIN
  IF least(p_event_months, p_log_months) < 1 THEN
    RAISE EXCEPTION 'at least one month is kept' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF NOT pg_try_advisory_xact_lock(1400141637) THEN
    RETURN 0;
  END IF;
  FOR v_kept IN
    SELECT * FROM (VALUES ('store_events', p_event_months), ('attempt_logs', p_log_months)) AS t (parent, months)
  LOOP
    FOR v_month IN
      SELECT generate_series(date_trunc('month', now()), date_trunc('month', now()) + interval '2 months', '1 month')
    LOOP
      v_name := format('%s_%s', v_kept.parent, to_char(v_month, 'YYYY_MM'));
      IF to_regclass(format('storeplane.%I', v_name)) IS NULL THEN
        -- First beside the parent: rows of the month that are in the rest already have to move before it is attached.
        EXECUTE format('CREATE TABLE storeplane.%I (LIKE storeplane.%I INCLUDING ALL)', v_name, v_kept.parent);
        EXECUTE format('WITH moved AS (DELETE FROM storeplane.%I WHERE created_at >= %L AND created_at < %L RETURNING *)'
                       ' INSERT INTO storeplane.%I SELECT * FROM moved',
                       v_kept.parent || '_rest', v_month, v_month + interval '1 month', v_name);
        EXECUTE format('ALTER TABLE storeplane.%I ATTACH PARTITION storeplane.%I FOR VALUES FROM (%L) TO (%L)',
                       v_kept.parent, v_name, v_month, v_month + interval '1 month');
        v_changed := v_changed + 1;
      END IF;
    END LOOP;
    FOR v_child IN
      SELECT c.oid::regclass FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
       WHERE i.inhparent = format('storeplane.%I', v_kept.parent)::regclass
         AND c.relname ~ (v_kept.parent || '_\d{4}_\d{2}$')
         AND to_date(right(c.relname, 7), 'YYYY_MM')
             < date_trunc('month', now()) - make_interval(months => v_kept.months)
    LOOP
      EXECUTE format('DROP TABLE %s', v_child);
      v_changed := v_changed + 1;
    END LOOP;
  END LOOP;
  RETURN v_changed;
END
$$;
SELECT storeplane.keep_partitions(13, 3);

CREATE TABLE storeplane.audit_log (
  id         bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_log_pkey PRIMARY KEY,
  -- Null for what the system does by itself.
  actor_id   uuid        CONSTRAINT audit_log_actor_fkey REFERENCES storeplane.users,
  store_id   uuid        CONSTRAINT audit_log_store_fkey REFERENCES storeplane.stores,
  action     text        NOT NULL,
  details    jsonb       NOT NULL DEFAULT '{}',
  ip         text,
  created_at timestamptz NOT NULL DEFAULT now()
);
