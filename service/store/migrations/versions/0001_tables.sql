-- Tables and indexes. service/store/tables.py describes each column; a test compares the two.

CREATE TABLE coupons (
    id bigint GENERATED ALWAYS AS IDENTITY,
    name varchar NOT NULL,
    quantity integer NOT NULL,
    waitlist integer DEFAULT 0 NOT NULL,
    issued integer DEFAULT 0 NOT NULL,
    held integer DEFAULT 0 NOT NULL,
    standby integer DEFAULT 0 NOT NULL,
    opens_at timestamptz,
    closes_at timestamptz,
    override varchar DEFAULT 'none' NOT NULL,
    version integer DEFAULT 0 NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    archived_at timestamptz,
    CONSTRAINT coupons_pkey PRIMARY KEY (id),
    CONSTRAINT coupons_quantity_check CHECK (quantity >= 1),
    CONSTRAINT coupons_waitlist_check CHECK (waitlist >= 0),
    CONSTRAINT coupons_never_over_issued_check CHECK (issued >= 0 AND held >= 0 AND issued + held <= quantity),
    CONSTRAINT coupons_standby_check CHECK (standby >= 0),
    CONSTRAINT coupons_window_check CHECK (closes_at > opens_at),
    CONSTRAINT coupons_override_check CHECK (override IN ('none', 'paused', 'closed')),
    CONSTRAINT coupons_archived_check CHECK (
        archived_at IS NULL OR override = 'closed' OR (closes_at IS NOT NULL AND closes_at <= archived_at)
    )
) WITH (fillfactor = 50);
CREATE INDEX coupons_unarchived ON coupons (id) WHERE archived_at IS NULL;
CREATE INDEX coupons_standby ON coupons (id) WHERE standby > 0;

CREATE TABLE coupon_changes (
    coupon_id bigint NOT NULL,
    version integer NOT NULL,
    log_id smallint,
    partition integer,
    first_offset bigint,
    name varchar NOT NULL,
    quantity integer NOT NULL,
    waitlist integer NOT NULL,
    opens_at timestamptz,
    closes_at timestamptz,
    override varchar NOT NULL,
    archived_at timestamptz,
    changed_by varchar NOT NULL,
    changed_at timestamptz DEFAULT now() NOT NULL,
    published_at timestamptz,
    CONSTRAINT coupon_changes_pkey PRIMARY KEY (coupon_id, version),
    CONSTRAINT coupon_changes_first_offset_check CHECK ((version = 0) = (first_offset IS NULL)),
    CONSTRAINT coupon_changes_coupon_id_fkey FOREIGN KEY(coupon_id) REFERENCES coupons (id)
);
CREATE INDEX coupon_changes_unpublished ON coupon_changes (changed_at) WHERE published_at IS NULL;

CREATE TABLE logs (
    id smallint GENERATED ALWAYS AS IDENTITY,
    topic varchar NOT NULL,
    topic_id varchar NOT NULL,
    adopted_by varchar NOT NULL,
    adopted_at timestamptz DEFAULT now() NOT NULL,
    closed_at timestamptz,
    CONSTRAINT logs_pkey PRIMARY KEY (id),
    CONSTRAINT logs_topic_id_key UNIQUE (topic_id)
);
CREATE UNIQUE INDEX logs_one_open ON logs (topic) WHERE closed_at IS NULL;

CREATE TABLE offsets (
    log_id smallint NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    advanced_to bigint NOT NULL,
    watermark timestamptz DEFAULT 'epoch' NOT NULL,
    closed boolean DEFAULT 'false' NOT NULL,
    CONSTRAINT offsets_pkey PRIMARY KEY (log_id, partition),
    CONSTRAINT offsets_log_id_fkey FOREIGN KEY(log_id) REFERENCES logs (id)
) WITH (fillfactor = 50);

CREATE TABLE lost_ranges (
    id bigint GENERATED ALWAYS AS IDENTITY,
    log_id smallint NOT NULL,
    partition integer NOT NULL,
    first_offset bigint NOT NULL,
    end_offset bigint,
    reason varchar NOT NULL,
    recorded_by varchar NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT lost_ranges_pkey PRIMARY KEY (id),
    CONSTRAINT lost_ranges_end_offset_check CHECK (end_offset > first_offset),
    CONSTRAINT lost_ranges_log_id_fkey FOREIGN KEY(log_id) REFERENCES logs (id)
);
CREATE INDEX lost_ranges_partition ON lost_ranges (partition, recorded_at);

CREATE TABLE requests (
    log_id smallint NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    coupon_id bigint NOT NULL,
    user_id bigint NOT NULL,
    request_id varchar NOT NULL,
    state varchar NOT NULL,
    code varchar,
    sequence bigint,
    attempts smallint NOT NULL,
    requested_at timestamptz NOT NULL,
    decided_at timestamptz,
    CONSTRAINT requests_pkey PRIMARY KEY (log_id, partition, "offset"),
    CONSTRAINT requests_state_check CHECK (state IN ('issued', 'retrying', 'standby') OR state IN ('refused', 'dead')),
    CONSTRAINT requests_sequence_check CHECK ((state = 'issued') = (sequence IS NOT NULL)),
    CONSTRAINT requests_code_check CHECK ((state IN ('refused', 'dead')) = (code IS NOT NULL)),
    CONSTRAINT requests_decided_at_check CHECK ((state IN ('issued', 'refused', 'dead')) = (decided_at IS NOT NULL))
);
CREATE INDEX requests_ended ON requests (coupon_id, user_id) WHERE NOT (state IN ('issued', 'retrying', 'standby'));
CREATE UNIQUE INDEX requests_one_live ON requests (coupon_id, user_id) WHERE state IN ('issued', 'retrying', 'standby');
CREATE INDEX requests_standby ON requests (coupon_id, log_id, partition, "offset") WHERE state = 'standby';

CREATE TABLE retries (
    log_id smallint NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    appended_at timestamptz NOT NULL,
    attempts smallint NOT NULL,
    next_attempt_at timestamptz,
    first_error varchar,
    error_type varchar,
    error_message varchar,
    CONSTRAINT retries_pkey PRIMARY KEY (log_id, partition, "offset")
);
CREATE INDEX retries_due ON retries (next_attempt_at);

CREATE TABLE failed_attempts (
    log_id smallint NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    attempt smallint NOT NULL,
    failed_at timestamptz NOT NULL,
    error_type varchar NOT NULL,
    error_message varchar NOT NULL,
    dead_code varchar,
    CONSTRAINT failed_attempts_pkey PRIMARY KEY (log_id, partition, "offset", attempt)
);

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY,
    log_id smallint,
    partition integer,
    "offset" bigint,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    appended_at timestamptz NOT NULL,
    coupon_id bigint,
    user_id bigint,
    request_id varchar,
    code varchar NOT NULL,
    attempts smallint NOT NULL,
    first_error varchar NOT NULL,
    error_type varchar NOT NULL,
    error_message varchar NOT NULL,
    state varchar DEFAULT 'new' NOT NULL,
    dead_at timestamptz DEFAULT now() NOT NULL,
    lease_until timestamptz,
    forwarded_at timestamptz,
    dlt_partition integer,
    dlt_offset bigint,
    CONSTRAINT dead_letters_pkey PRIMARY KEY (id),
    CONSTRAINT dead_letters_state_check CHECK (state IN ('new', 'replayed', 'discarded'))
);
CREATE INDEX dead_letters_coupon ON dead_letters (coupon_id, id);
CREATE INDEX dead_letters_dead_at ON dead_letters (dead_at);
CREATE UNIQUE INDEX dead_letters_foreign ON dead_letters (dlt_partition, dlt_offset, appended_at) WHERE log_id IS NULL;
CREATE INDEX dead_letters_new ON dead_letters (code) WHERE state = 'new';
CREATE UNIQUE INDEX dead_letters_origin ON dead_letters (log_id, partition, "offset");
CREATE INDEX dead_letters_unforwarded ON dead_letters (id) WHERE forwarded_at IS NULL;
CREATE INDEX dead_letters_unverified ON dead_letters (id)
    WHERE error_type = 'service.domain.errors.UnverifiedRequestId' AND state = 'new' AND log_id IS NOT NULL;

CREATE TABLE dead_letter_actions (
    id bigint GENERATED ALWAYS AS IDENTITY,
    dead_letter_id bigint NOT NULL,
    action varchar NOT NULL,
    acted_by varchar NOT NULL,
    state varchar,
    code varchar,
    acted_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT dead_letter_actions_pkey PRIMARY KEY (id),
    CONSTRAINT dead_letter_actions_action_check CHECK (action IN ('replayed', 'discarded')),
    CONSTRAINT dead_letter_actions_dead_letter_id_fkey FOREIGN KEY(dead_letter_id) REFERENCES dead_letters (id)
);
CREATE INDEX dead_letter_actions_letter ON dead_letter_actions (dead_letter_id, id);

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY,
    kind varchar NOT NULL,
    log_id smallint NOT NULL,
    partition integer NOT NULL,
    first_offset bigint NOT NULL,
    last_offset bigint NOT NULL,
    decided_at timestamptz NOT NULL,
    attempts smallint DEFAULT '0' NOT NULL,
    next_attempt_at timestamptz DEFAULT now() NOT NULL,
    lease_until timestamptz,
    delivery_id uuid,
    failed_at timestamptz,
    error varchar,
    CONSTRAINT outbox_pkey PRIMARY KEY (id),
    CONSTRAINT outbox_kind_check CHECK (kind IN ('notify', 'gate'))
);
CREATE INDEX outbox_delivery ON outbox (delivery_id) WHERE delivery_id IS NOT NULL;
CREATE INDEX outbox_due ON outbox (kind, next_attempt_at);
CREATE INDEX outbox_tried ON outbox (kind, id) WHERE delivery_id IS NOT NULL;

CREATE TABLE notices (
    log_id smallint NOT NULL,
    partition integer NOT NULL,
    first_offset bigint NOT NULL,
    decided_at timestamptz NOT NULL,
    last_offset bigint NOT NULL,
    delivery_id uuid NOT NULL,
    attempts smallint NOT NULL,
    delivered_at timestamptz DEFAULT now() NOT NULL,
    status smallint NOT NULL,
    failed_at timestamptz,
    error varchar,
    CONSTRAINT notices_pkey PRIMARY KEY (log_id, partition, first_offset, decided_at)
);

CREATE TABLE request_id_keys (
    fingerprint varchar NOT NULL,
    announced_at timestamptz DEFAULT now() NOT NULL,
    signs_since timestamptz,
    ends_at timestamptz,
    late_id_at timestamptz,
    CONSTRAINT request_id_keys_pkey PRIMARY KEY (fingerprint)
);

CREATE TABLE idempotency_keys (
    caller varchar NOT NULL,
    key varchar NOT NULL,
    fingerprint bytea NOT NULL,
    coupon_id bigint NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (caller, key),
    CONSTRAINT idempotency_keys_coupon_id_fkey FOREIGN KEY (coupon_id) REFERENCES coupons (id)
);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);

CREATE TABLE write_checks (
    process varchar NOT NULL,
    written_at timestamptz NOT NULL,
    CONSTRAINT write_checks_pkey PRIMARY KEY (process)
) WITH (fillfactor = 50);

CREATE TABLE verifications (
    id bigint GENERATED ALWAYS AS IDENTITY,
    coupon_id bigint,
    ok boolean NOT NULL,
    ended_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT verifications_pkey PRIMARY KEY (id)
);
CREATE INDEX verifications_latest ON verifications (coupon_id, id);

CREATE TABLE api_keys (
    prefix varchar NOT NULL,
    digest bytea NOT NULL,
    owner varchar NOT NULL,
    role varchar NOT NULL,
    created_by varchar NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz,
    revoked_by varchar,
    revoked_at timestamptz,
    last_used_at timestamptz,
    CONSTRAINT api_keys_pkey PRIMARY KEY (prefix),
    CONSTRAINT api_keys_digest_key UNIQUE (digest),
    CONSTRAINT api_keys_role_check CHECK (role IN ('on_behalf', 'read', 'operate', 'admin'))
);
