-- The counters of clusters and user_slots follow the rows they count in the same transaction, whichever statement
-- changes those: nobody can forget to give a slot back.

CREATE FUNCTION storeplane.count_waiting() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_change integer := (NEW.next_dispatch_at IS NOT NULL)::integer;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    v_change := v_change - (OLD.next_dispatch_at IS NOT NULL)::integer;
  END IF;
  IF v_change <> 0 THEN
    INSERT INTO storeplane.user_slots AS s (cluster_id, user_id, waiting)
    VALUES (NEW.cluster_id, NEW.owner_id, greatest(v_change, 0))
    ON CONFLICT ON CONSTRAINT user_slots_pkey DO UPDATE SET waiting = s.waiting + v_change;
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER operations_count_waiting AFTER INSERT OR UPDATE OF next_dispatch_at ON storeplane.operations
  FOR EACH ROW EXECUTE FUNCTION storeplane.count_waiting();

CREATE FUNCTION storeplane.count_in_flight() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_change  integer := (NEW.finished_at IS NULL)::integer;
  v_cluster text;
  v_owner   uuid;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    v_change := v_change - (OLD.finished_at IS NULL)::integer;
  END IF;
  IF v_change <> 0 THEN
    SELECT o.cluster_id, o.owner_id INTO v_cluster, v_owner
      FROM storeplane.operations AS o WHERE o.id = NEW.operation_id;
    -- The cluster first, as the claim does.
    UPDATE storeplane.clusters SET in_flight = in_flight + v_change WHERE id = v_cluster;
    UPDATE storeplane.user_slots SET in_flight = in_flight + v_change
     WHERE cluster_id = v_cluster AND user_id = v_owner;
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER attempts_count_in_flight AFTER INSERT OR UPDATE OF finished_at ON storeplane.attempts
  FOR EACH ROW EXECUTE FUNCTION storeplane.count_in_flight();

-- How long an operation may take from its first dispatch.
CREATE FUNCTION storeplane.time_allowed(p_kind text) RETURNS interval
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN CASE p_kind WHEN 'upgrade' THEN interval '30 minutes' WHEN 'backup' THEN interval '60 minutes'
                   ELSE interval '15 minutes' END;
