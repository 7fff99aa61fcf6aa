-- First tables: who asks (users), where work runs (clusters), what is wanted (stores, operations), how it is tried
-- (attempts, phases). State columns are text with CHECK: values can be added and renamed without rewriting a type.
-- Every writer takes row locks in one order, so that two of them never wait for each other:
-- operations, stores, users, attempts, clusters, user_slots.

CREATE SCHEMA IF NOT EXISTS storeplane;

CREATE TABLE storeplane.users (
  id          uuid        CONSTRAINT users_pkey PRIMARY KEY,
  name        text        NOT NULL CONSTRAINT users_name_unique UNIQUE
                          CONSTRAINT users_name_length CHECK (char_length(name) BETWEEN 1 AND 64),
  role        text        NOT NULL CONSTRAINT users_role_known CHECK (role IN ('member', 'operator', 'admin')),
  -- SHA-256 of a random token: nothing to slow down, because nothing can be guessed.
  token_hash  bytea       NOT NULL CONSTRAINT users_token_hash_unique UNIQUE
                          CONSTRAINT users_token_hash_length CHECK (octet_length(token_hash) = 32),
  -- How many stores that are not deleted the user may have, and has.
  max_stores  integer     NOT NULL DEFAULT 5 CONSTRAINT users_max_stores_range CHECK (max_stores BETWEEN 0 AND 100000),
  store_count integer     NOT NULL DEFAULT 0 CONSTRAINT users_store_count_positive CHECK (store_count >= 0),
  -- The moment until which the user's creates have used up their rate (a leaky bucket in one column): N replicas share
  -- one budget, and the row is locked for store_count in the same statement anyway.
  creates_until timestamptz NOT NULL DEFAULT 'epoch',
  created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE storeplane.clusters (
  id               text             CONSTRAINT clusters_pkey PRIMARY KEY,
  -- Attempts that are open, and how many may be.
  in_flight        integer          NOT NULL DEFAULT 0 CONSTRAINT clusters_in_flight_positive CHECK (in_flight >= 0),
  in_flight_limit  integer          NOT NULL DEFAULT 200
                                    CONSTRAINT clusters_in_flight_limit_range CHECK (in_flight_limit BETWEEN 0 AND 100000),
  -- Token bucket of Job creations: tokens at bucket_at, refilled by bucket_rate a second up to bucket_size.
  bucket_tokens    double precision NOT NULL DEFAULT 100,
  bucket_at        timestamptz      NOT NULL DEFAULT now(),
  bucket_rate      double precision NOT NULL DEFAULT 20
                                    CONSTRAINT clusters_bucket_rate_positive CHECK (bucket_rate > 0),
  bucket_size      double precision NOT NULL DEFAULT 100
                                    CONSTRAINT clusters_bucket_size_positive CHECK (bucket_size >= 1),
  -- While the circuit is open nothing is claimed; after circuit_until one claim at a time tries, until one works.
  circuit_reason   text,
  circuit_until    timestamptz,
  circuit_failures integer          NOT NULL DEFAULT 0,
  -- Waiting in the queue is counted from here at the earliest: an outage fails nobody in bulk.
  circuit_closed_at timestamptz     NOT NULL DEFAULT now(),
  created_at       timestamptz      NOT NULL DEFAULT now(),
  CONSTRAINT clusters_circuit_is_whole CHECK (num_nulls(circuit_reason, circuit_until) IN (0, 2))
);
INSERT INTO storeplane.clusters (id) VALUES ('default');

-- One row for each user in each cluster, made by the user's first operation there: whose turn it is.
CREATE TABLE storeplane.user_slots (
  cluster_id     text        NOT NULL CONSTRAINT user_slots_cluster_fkey REFERENCES storeplane.clusters,
  user_id        uuid        NOT NULL CONSTRAINT user_slots_user_fkey REFERENCES storeplane.users,
  -- Operations that want a dispatch.
  waiting        integer     NOT NULL DEFAULT 0 CONSTRAINT user_slots_waiting_positive CHECK (waiting >= 0),
  -- Attempts that are open, and how many may be.
  in_flight      integer     NOT NULL DEFAULT 0 CONSTRAINT user_slots_in_flight_positive CHECK (in_flight >= 0),
  slots          integer     NOT NULL DEFAULT 20 CONSTRAINT user_slots_slots_range CHECK (slots BETWEEN 0 AND 100000),
  -- The claim serves the user least recently served first.
  last_served_at timestamptz NOT NULL DEFAULT 'epoch',
  CONSTRAINT user_slots_pkey PRIMARY KEY (cluster_id, user_id)
);
CREATE INDEX user_slots_waiting ON storeplane.user_slots (cluster_id, last_served_at) WHERE waiting > 0;

CREATE TABLE storeplane.stores (
  id            uuid        CONSTRAINT stores_pkey PRIMARY KEY,
  owner_id      uuid        NOT NULL CONSTRAINT stores_owner_fkey REFERENCES storeplane.users,
  cluster_id    text        NOT NULL CONSTRAINT stores_cluster_fkey REFERENCES storeplane.clusters,
  name          text        NOT NULL CONSTRAINT stores_name_length CHECK (char_length(name) BETWEEN 1 AND 60),
  slug          text        NOT NULL
                            CONSTRAINT stores_slug_is_label
                            CHECK (slug ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$' AND char_length(slug) <= 48),
  engine        text        NOT NULL,
  state         text        NOT NULL CONSTRAINT stores_state_known CHECK (state IN (
                              'provisioning', 'ready', 'failed', 'upgrading', 'rolling_back', 'suspended', 'deleting',
                              'deleted')),
  namespace     text        NOT NULL CONSTRAINT stores_namespace_unique UNIQUE
                            CONSTRAINT stores_namespace_length CHECK (char_length(namespace) <= 63),
  -- Of the namespace the provisioner made; a delete removes only that one.
  namespace_uid text,
  -- A create has begun and nothing has removed since what it made.
  may_have_objects boolean  NOT NULL DEFAULT false,
  urls          jsonb       NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now()
);
-- A deleted store's slug is free again at once; its namespace had a name of its own.
CREATE UNIQUE INDEX stores_slug_unique ON storeplane.stores (owner_id, slug) WHERE state <> 'deleted';
CREATE INDEX stores_newest ON storeplane.stores (created_at DESC, id DESC);
CREATE INDEX stores_of_owner ON storeplane.stores (owner_id, created_at DESC, id DESC);
CREATE INDEX stores_failed ON storeplane.stores (cluster_id, updated_at) WHERE state = 'failed' AND may_have_objects;

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
  -- The ended operation this one tries again.
  retry_of            uuid        CONSTRAINT operations_retry_of_fkey REFERENCES storeplane.operations,
  -- Number of the newest attempt; 0 before the first.
  attempt             integer     NOT NULL DEFAULT 0 CONSTRAINT operations_attempt_positive CHECK (attempt >= 0),
  -- Raised by every claim, by the pod's handshake and by a person's retry: a late writer carries an old number and
  -- loses.
  fence               bigint      NOT NULL DEFAULT 0,
  lease_holder        text,
  lease_until         timestamptz,
  -- When the next attempt, or the open one that has no Job yet, may be claimed; null while there is nothing to claim.
  next_dispatch_at    timestamptz DEFAULT now(),
  waiting_reason      text        NOT NULL DEFAULT '',
  waiting_since       timestamptz NOT NULL DEFAULT now(),
  -- Memory limit of the next attempt's pod; raised once, after one ran out of it.
  memory_mib          integer     NOT NULL DEFAULT 512
                                  CONSTRAINT operations_memory_range CHECK (memory_mib BETWEEN 128 AND 8192),
  -- Set by the first dispatch: waiting in the queue never fails an operation by this clock.
  deadline_at         timestamptz,
  cancel_requested_at timestamptz,
  result              jsonb,
  error               jsonb,
  created_at          timestamptz NOT NULL DEFAULT now(),
  started_at          timestamptz,
  finished_at         timestamptz,
  CONSTRAINT operations_finished_is_final
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))),
  CONSTRAINT operations_failed_has_error CHECK ((error IS NOT NULL) = (state = 'failed')),
  CONSTRAINT operations_final_waits_for_nothing CHECK (finished_at IS NULL OR next_dispatch_at IS NULL),
  CONSTRAINT operations_cancelled_waits_for_nothing CHECK (cancel_requested_at IS NULL OR next_dispatch_at IS NULL)
);
CREATE UNIQUE INDEX operations_one_active ON storeplane.operations (store_id)
  WHERE state IN ('queued', 'running') AND kind <> 'delete';
CREATE UNIQUE INDEX operations_one_delete ON storeplane.operations (store_id)
  WHERE state IN ('queued', 'running') AND kind = 'delete';
CREATE INDEX operations_to_dispatch ON storeplane.operations (cluster_id, owner_id, created_at, id)
  WHERE next_dispatch_at IS NOT NULL;
CREATE INDEX operations_queued ON storeplane.operations (created_at) WHERE state = 'queued';
CREATE INDEX operations_running ON storeplane.operations (deadline_at) WHERE state = 'running';
CREATE INDEX operations_to_cancel ON storeplane.operations (cancel_requested_at)
  WHERE cancel_requested_at IS NOT NULL AND state IN ('queued', 'running');
CREATE INDEX operations_by_store ON storeplane.operations (store_id, created_at DESC, id DESC);
CREATE INDEX operations_newest ON storeplane.operations (created_at DESC, id DESC);
CREATE INDEX operations_of_owner ON storeplane.operations (owner_id, created_at DESC, id DESC);

CREATE TABLE storeplane.attempts (
  operation_id    uuid        NOT NULL CONSTRAINT attempts_operation_fkey REFERENCES storeplane.operations,
  number          integer     NOT NULL CONSTRAINT attempts_number_positive CHECK (number > 0),
  store_id        uuid        NOT NULL CONSTRAINT attempts_store_fkey REFERENCES storeplane.stores,
  state           text        NOT NULL DEFAULT 'created' CONSTRAINT attempts_state_known CHECK (state IN (
                                'created', 'dispatched', 'running', 'succeeded', 'failed', 'lost', 'cancelled')),
  job_name        text        NOT NULL CONSTRAINT attempts_job_name_unique UNIQUE,
  -- The exact bytes every dispatcher posts, without the token.
  manifest        text,
  manifest_sha256 text,
  token_hash      bytea,
  token_key_id    text,
  memory_mib      integer     NOT NULL,
  job_uid         text,
  pod_uid         text,
  session_hash    bytea,
  outcome         text        CONSTRAINT attempts_outcome_known CHECK (outcome IN (
                                'succeeded', 'retryable', 'permanent', 'not_started', 'out_of_memory', 'evicted',
                                'refused', 'lost', 'timeout', 'cancelled', 'retried')),
  exit_code       integer,
  result          jsonb,
  problem         jsonb,
  -- What the cluster showed of its pod: category, detail, remedy, events, the store's own pods.
  diagnosis       jsonb,
  -- The moment of the statement: its transaction may have waited for the cluster's row.
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  dispatched_at   timestamptz,
  started_at      timestamptz,
  finished_at     timestamptz,
  -- When the end of its container or Job was seen first: the kubelet's clock may be any other.
  end_seen_at     timestamptz,
  -- Who stores log and diagnosis now; another process may begin after that.
  harvest_until   timestamptz,
  harvested_at    timestamptz,
  log_state       text        CONSTRAINT attempts_log_state_known CHECK (log_state IN ('stored', 'unavailable')),
  -- From here on no pod of its Job can do anything any more; nothing of the store is dispatched before.
  pods_ended_at   timestamptz,
  CONSTRAINT attempts_pkey PRIMARY KEY (operation_id, number),
  CONSTRAINT attempts_finished_is_final
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'lost', 'cancelled'))),
  CONSTRAINT attempts_finished_has_outcome CHECK ((finished_at IS NOT NULL) = (outcome IS NOT NULL)),
  CONSTRAINT attempts_settled_is_final
    CHECK (finished_at IS NOT NULL OR (harvested_at IS NULL AND pods_ended_at IS NULL)),
  CONSTRAINT attempts_manifest_is_whole
    CHECK (num_nulls(manifest, manifest_sha256, token_hash, token_key_id) IN (0, 4)),
  CONSTRAINT attempts_session_is_whole CHECK (num_nulls(pod_uid, session_hash) IN (0, 2))
);
CREATE UNIQUE INDEX attempts_one_open ON storeplane.attempts (operation_id)
  WHERE state IN ('created', 'dispatched', 'running');
CREATE INDEX attempts_unsettled ON storeplane.attempts (created_at, operation_id, number)
  WHERE harvested_at IS NULL OR pods_ended_at IS NULL;
CREATE INDEX attempts_holding_store ON storeplane.attempts (store_id) WHERE pods_ended_at IS NULL;

CREATE TABLE storeplane.phases (
  operation_id uuid        NOT NULL,
  number       integer     NOT NULL,
  phase        text        NOT NULL CONSTRAINT phases_phase_known CHECK (phase IN (
                             'namespace', 'policies', 'secrets', 'release', 'setup', 'verify', 'expose', 'remove')),
  started_at   timestamptz NOT NULL DEFAULT now(),
  finished_at  timestamptz,
  detail       jsonb       NOT NULL DEFAULT '{}',
  CONSTRAINT phases_pkey PRIMARY KEY (operation_id, number, phase),
  CONSTRAINT phases_attempt_fkey FOREIGN KEY (operation_id, number) REFERENCES storeplane.attempts
);

CREATE TABLE storeplane.idempotency_keys (
  user_id      uuid        NOT NULL CONSTRAINT idempotency_keys_user_fkey REFERENCES storeplane.users,
  route        text        NOT NULL,
  key          text        NOT NULL CONSTRAINT idempotency_keys_key_length CHECK (char_length(key) BETWEEN 1 AND 255),
  -- SHA-256 of what was asked: the same key with another wish is a mistake.
  fingerprint  bytea       NOT NULL,
  operation_id uuid        NOT NULL CONSTRAINT idempotency_keys_operation_fkey REFERENCES storeplane.operations,
  -- The body of the first answer as the bytes it was, which jsonb would order its own way; null only if its writer
  -- died in the same instant.
  answer       text,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, route, key)
);
CREATE INDEX idempotency_keys_by_age ON storeplane.idempotency_keys (created_at);
