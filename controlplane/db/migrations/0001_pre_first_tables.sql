-- First tables: users, clusters, stores, operations, attempts, phases, history and audit.
-- State columns are text with CHECK: values can be added and renamed without rewriting a type.

CREATE SCHEMA IF NOT EXISTS storeplane;

CREATE TABLE storeplane.users (
  id             uuid        CONSTRAINT users_pkey PRIMARY KEY,
  name           text        NOT NULL CONSTRAINT users_name_unique UNIQUE
                             CONSTRAINT users_name_length CHECK (char_length(name) BETWEEN 1 AND 64),
  role           text        NOT NULL CONSTRAINT users_role_known CHECK (role IN ('member', 'operator', 'admin')),
  -- SHA-256 of a random token: nothing to slow down, because nothing can be guessed.
  token_hash     bytea       NOT NULL CONSTRAINT users_token_hash_unique UNIQUE
                             CONSTRAINT users_token_hash_length CHECK (octet_length(token_hash) = 32),
  -- The claim serves the user least recently served first.
  last_served_at timestamptz NOT NULL DEFAULT 'epoch',
  created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE storeplane.clusters (
  id         text        CONSTRAINT clusters_pkey PRIMARY KEY,
  created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO storeplane.clusters (id) VALUES ('default');

CREATE TABLE storeplane.stores (
  id         uuid        CONSTRAINT stores_pkey PRIMARY KEY,
  owner_id   uuid        NOT NULL CONSTRAINT stores_owner_fkey REFERENCES storeplane.users,
  cluster_id text        NOT NULL CONSTRAINT stores_cluster_fkey REFERENCES storeplane.clusters,
  name       text        NOT NULL CONSTRAINT stores_name_length CHECK (char_length(name) BETWEEN 1 AND 60),
  slug       text        NOT NULL
                         CONSTRAINT stores_slug_is_label
                         CHECK (slug ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$' AND char_length(slug) <= 48),
  engine     text        NOT NULL,
  state      text        NOT NULL CONSTRAINT stores_state_known CHECK (state IN (
                           'provisioning', 'ready', 'failed', 'upgrading', 'rolling_back', 'suspended', 'deleting',
                           'deleted')),
  namespace  text        NOT NULL CONSTRAINT stores_namespace_unique UNIQUE
                         CONSTRAINT stores_namespace_length CHECK (char_length(namespace) <= 63),
  urls       jsonb       NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
-- A deleted store's slug is free again at once; its namespace had a name of its own.
CREATE UNIQUE INDEX stores_slug_unique ON storeplane.stores (owner_id, slug) WHERE state <> 'deleted';

CREATE TABLE storeplane.operations (
  id                  uuid        CONSTRAINT operations_pkey PRIMARY KEY,
  store_id            uuid        NOT NULL CONSTRAINT operations_store_fkey REFERENCES storeplane.stores,
  owner_id            uuid        NOT NULL CONSTRAINT operations_owner_fkey REFERENCES storeplane.users,
  cluster_id          text        NOT NULL CONSTRAINT operations_cluster_fkey REFERENCES storeplane.clusters,
  kind                text        NOT NULL CONSTRAINT operations_kind_known CHECK (kind IN (
                                    'create', 'upgrade', 'rollback', 'suspend', 'resume', 'backup', 'delete',
                                    'cleanup')),
  state               text        NOT NULL DEFAULT 'queued' CONSTRAINT operations_state_known CHECK (state IN (
                                    'queued', 'running', 'succeeded', 'failed', 'cancelled')),
  -- Complete and frozen at accept: every attempt renders the same.
  spec                jsonb       NOT NULL,
  request_id          text        NOT NULL,
  -- Number of the newest attempt; 0 before the first.
  attempt             integer     NOT NULL DEFAULT 0 CONSTRAINT operations_attempt_positive CHECK (attempt >= 0),
  -- Raised by every claim and by the pod's handshake: a late writer carries an old number and loses.
  fence               bigint      NOT NULL DEFAULT 0,
  lease_holder        text,
  lease_until         timestamptz,
  next_dispatch_at    timestamptz NOT NULL DEFAULT now(),
  waiting_reason      text        NOT NULL DEFAULT 'queued',
  waiting_since       timestamptz NOT NULL DEFAULT now(),
  -- Set by the first dispatch: waiting in the queue never fails an operation.
  deadline_at         timestamptz,
  cancel_requested_at timestamptz,
  result              jsonb,
  error               jsonb,
  created_at          timestamptz NOT NULL DEFAULT now(),
  started_at          timestamptz,
  finished_at         timestamptz,
  CONSTRAINT operations_finished_is_final
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))),
  CONSTRAINT operations_failed_has_error CHECK ((error IS NOT NULL) = (state = 'failed'))
);
CREATE UNIQUE INDEX operations_one_active ON storeplane.operations (store_id)
  WHERE state IN ('queued', 'running') AND kind <> 'delete';
CREATE UNIQUE INDEX operations_one_delete ON storeplane.operations (store_id)
  WHERE state IN ('queued', 'running') AND kind = 'delete';
CREATE INDEX operations_queued ON storeplane.operations (created_at, id) WHERE state = 'queued';
CREATE INDEX operations_by_store ON storeplane.operations (store_id, created_at DESC, id DESC);
CREATE INDEX operations_running ON storeplane.operations (deadline_at) WHERE state = 'running';

CREATE TABLE storeplane.attempts (
  operation_id    uuid        NOT NULL CONSTRAINT attempts_operation_fkey REFERENCES storeplane.operations,
  number          integer     NOT NULL CONSTRAINT attempts_number_positive CHECK (number > 0),
  state           text        NOT NULL DEFAULT 'created' CONSTRAINT attempts_state_known CHECK (state IN (
                                'created', 'dispatched', 'running', 'succeeded', 'failed', 'lost', 'cancelled')),
  job_name        text        NOT NULL CONSTRAINT attempts_job_name_unique UNIQUE,
  -- The exact bytes every dispatcher posts, without the token.
  manifest        text,
  manifest_sha256 text,
  token_hash      bytea,
  token_key_id    text,
  job_uid         text,
  pod_uid         text,
  session_hash    bytea,
  outcome         text        CONSTRAINT attempts_outcome_known CHECK (outcome IN (
                                'succeeded', 'retryable', 'permanent', 'refused', 'lost', 'timeout', 'cancelled')),
  exit_code       integer,
  result          jsonb,
  problem         jsonb,
  created_at      timestamptz NOT NULL DEFAULT now(),
  dispatched_at   timestamptz,
  started_at      timestamptz,
  finished_at     timestamptz,
  -- When the end of its container or Job was seen first: the kubelet's clock may be any other.
  end_seen_at     timestamptz,
  harvested_at    timestamptz,
  log_state       text        CONSTRAINT attempts_log_state_known CHECK (log_state IN ('stored', 'unavailable')),
  CONSTRAINT attempts_pkey PRIMARY KEY (operation_id, number),
  CONSTRAINT attempts_finished_is_final
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'lost', 'cancelled'))),
  CONSTRAINT attempts_finished_has_outcome CHECK ((finished_at IS NOT NULL) = (outcome IS NOT NULL)),
  CONSTRAINT attempts_manifest_is_whole
    CHECK (num_nulls(manifest, manifest_sha256, token_hash, token_key_id) IN (0, 4)),
  CONSTRAINT attempts_session_is_whole CHECK (num_nulls(pod_uid, session_hash) IN (0, 2))
);
CREATE UNIQUE INDEX attempts_one_open ON storeplane.attempts (operation_id)
  WHERE state IN ('created', 'dispatched', 'running');
CREATE INDEX attempts_unharvested ON storeplane.attempts (created_at, operation_id, number)
  WHERE harvested_at IS NULL;

CREATE TABLE storeplane.attempt_logs (
  operation_id uuid        NOT NULL,
  number       integer     NOT NULL,
  content      text        NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT attempt_logs_pkey PRIMARY KEY (operation_id, number),
  CONSTRAINT attempt_logs_attempt_fkey FOREIGN KEY (operation_id, number) REFERENCES storeplane.attempts
);

CREATE TABLE storeplane.phases (
  operation_id uuid        NOT NULL,
  number       integer     NOT NULL,
  phase        text        NOT NULL CONSTRAINT phases_phase_known CHECK (phase IN (
                             'namespace', 'policies', 'secrets', 'release', 'setup', 'verify', 'expose')),
  started_at   timestamptz NOT NULL DEFAULT now(),
  finished_at  timestamptz,
  detail       jsonb       NOT NULL DEFAULT '{}',
  CONSTRAINT phases_pkey PRIMARY KEY (operation_id, number, phase),
  CONSTRAINT phases_attempt_fkey FOREIGN KEY (operation_id, number) REFERENCES storeplane.attempts
);

CREATE TABLE storeplane.store_events (
  id           bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT store_events_pkey PRIMARY KEY,
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
  created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX store_events_by_store ON storeplane.store_events (store_id, id);

CREATE TABLE storeplane.audit_log (
  id         bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_log_pkey PRIMARY KEY,
  actor_id   uuid        CONSTRAINT audit_log_actor_fkey REFERENCES storeplane.users,
  store_id   uuid        CONSTRAINT audit_log_store_fkey REFERENCES storeplane.stores,
  action     text        NOT NULL,
  details    jsonb       NOT NULL DEFAULT '{}',
  ip         text,
  created_at timestamptz NOT NULL DEFAULT now()
);
