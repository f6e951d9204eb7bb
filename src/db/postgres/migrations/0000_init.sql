CREATE TABLE "audit" (
	"seq" bigserial PRIMARY KEY NOT NULL,
	"at_ms" bigint NOT NULL,
	"by" text COLLATE "C" NOT NULL,
	"action" text COLLATE "C" NOT NULL,
	"user_id" text COLLATE "C",
	"detail" text COLLATE "C" DEFAULT '{}' NOT NULL
);
--> statement-breakpoint
CREATE TABLE "counters" (
	"name" text COLLATE "C" PRIMARY KEY NOT NULL,
	"value" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "events" (
	"id" text COLLATE "C" PRIMARY KEY NOT NULL,
	"user_id" text COLLATE "C" NOT NULL,
	"kind" text COLLATE "C" NOT NULL,
	"session_id" text COLLATE "C",
	"address" text COLLATE "C" DEFAULT '' NOT NULL,
	"device" text COLLATE "C" DEFAULT '' NOT NULL,
	"at_ms" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "idempotency_keys" (
	"id" text COLLATE "C" PRIMARY KEY NOT NULL,
	"user_id" text COLLATE "C",
	"fingerprint" text COLLATE "C" NOT NULL,
	"reference" text COLLATE "C",
	"response" text COLLATE "C",
	"created_at_ms" bigint NOT NULL,
	"expires_at_ms" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "known_origins" (
	"user_id" text COLLATE "C" NOT NULL,
	"origin" text COLLATE "C" NOT NULL,
	"failed" bigint DEFAULT 0 NOT NULL,
	"last_at_ms" bigint NOT NULL,
	CONSTRAINT "known_origins_user_id_origin_pk" PRIMARY KEY("user_id","origin")
);
--> statement-breakpoint
CREATE TABLE "limit_overrides" (
	"policy" text COLLATE "C" PRIMARY KEY NOT NULL,
	"windows" text COLLATE "C",
	"by" text COLLATE "C" NOT NULL,
	"at_ms" bigint NOT NULL,
	"version" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "login_failures" (
	"account" text COLLATE "C" PRIMARY KEY NOT NULL,
	"failed" bigint NOT NULL,
	"last_at_ms" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "one_time_tokens" (
	"hash" text COLLATE "C" PRIMARY KEY NOT NULL,
	"purpose" text COLLATE "C" NOT NULL,
	"user_id" text COLLATE "C" NOT NULL,
	"email" text COLLATE "C" NOT NULL,
	"former_email" text COLLATE "C",
	"created_at_ms" bigint NOT NULL,
	"expires_at_ms" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "outbox" (
	"seq" bigserial PRIMARY KEY NOT NULL,
	"id" text COLLATE "C" NOT NULL,
	"message" text COLLATE "C" NOT NULL,
	"state" text COLLATE "C" DEFAULT 'pending' NOT NULL,
	"due_at_ms" bigint NOT NULL,
	"created_at_ms" bigint NOT NULL,
	"expires_at_ms" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "redis_state" (
	"id" bigint PRIMARY KEY NOT NULL,
	"beat" bigint DEFAULT 0 NOT NULL,
	"repeated_seq" bigint DEFAULT 0 NOT NULL,
	"lost_seq" bigint,
	"lost_done_seq" bigint,
	"lost_sessions_ms" bigint,
	"lease_holder" text COLLATE "C",
	"lease_until_ms" bigint DEFAULT 0 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "revoked_tokens" (
	"id" text COLLATE "C" PRIMARY KEY NOT NULL,
	"user_id" text COLLATE "C" NOT NULL,
	"expires_at_ms" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "sessions" (
	"id" text COLLATE "C" PRIMARY KEY NOT NULL,
	"user_id" text COLLATE "C" NOT NULL,
	"device" text COLLATE "C" NOT NULL,
	"address" text COLLATE "C" NOT NULL,
	"created_at_ms" bigint NOT NULL,
	"last_seen_at_ms" bigint NOT NULL,
	"expires_at_ms" bigint NOT NULL,
	"epoch" bigint NOT NULL,
	"generation" bigint DEFAULT 1 NOT NULL,
	"token_id" text COLLATE "C",
	"authenticated_at_ms" bigint,
	"password_failures" bigint DEFAULT 0 NOT NULL,
	"data" text COLLATE "C" DEFAULT '{}' NOT NULL,
	"ended_at_ms" bigint,
	"ended_reason" text COLLATE "C"
);
--> statement-breakpoint
CREATE TABLE "users" (
	"id" text COLLATE "C" PRIMARY KEY NOT NULL,
	"email" text COLLATE "C" NOT NULL,
	"name" text COLLATE "C" NOT NULL,
	"search" text COLLATE "C",
	"role" text COLLATE "C" DEFAULT 'user' NOT NULL,
	"status" text COLLATE "C" DEFAULT 'active' NOT NULL,
	"email_verified_at_ms" bigint,
	"password_hash" text COLLATE "C" NOT NULL,
	"epoch" bigint DEFAULT 1 NOT NULL,
	"access_version" bigint DEFAULT 1 NOT NULL,
	"created_at_ms" bigint NOT NULL,
	"updated_at_ms" bigint NOT NULL
);
--> statement-breakpoint
CREATE INDEX "audit_user" ON "audit" USING btree ("user_id","seq");--> statement-breakpoint
CREATE INDEX "events_user" ON "events" USING btree ("user_id","at_ms");--> statement-breakpoint
CREATE INDEX "idempotency_keys_user" ON "idempotency_keys" USING btree ("user_id") WHERE "idempotency_keys"."user_id" is not null;--> statement-breakpoint
CREATE INDEX "idempotency_keys_expires" ON "idempotency_keys" USING btree ("expires_at_ms");--> statement-breakpoint
CREATE INDEX "login_failures_last" ON "login_failures" USING btree ("last_at_ms");--> statement-breakpoint
CREATE INDEX "one_time_tokens_user" ON "one_time_tokens" USING btree ("user_id","purpose");--> statement-breakpoint
CREATE INDEX "one_time_tokens_expires" ON "one_time_tokens" USING btree ("expires_at_ms");--> statement-breakpoint
CREATE INDEX "one_time_tokens_reserved" ON "one_time_tokens" USING btree ("email") WHERE "one_time_tokens"."purpose" = 'email-undo';--> statement-breakpoint
CREATE UNIQUE INDEX "outbox_id" ON "outbox" USING btree ("id");--> statement-breakpoint
CREATE INDEX "outbox_pending" ON "outbox" USING btree ("due_at_ms","seq") WHERE "outbox"."state" = 'pending';--> statement-breakpoint
CREATE INDEX "revoked_tokens_user" ON "revoked_tokens" USING btree ("user_id");--> statement-breakpoint
CREATE INDEX "revoked_tokens_expires" ON "revoked_tokens" USING btree ("expires_at_ms");--> statement-breakpoint
CREATE INDEX "sessions_user" ON "sessions" USING btree ("user_id","expires_at_ms");--> statement-breakpoint
CREATE INDEX "sessions_expires" ON "sessions" USING btree ("expires_at_ms");--> statement-breakpoint
CREATE INDEX "sessions_ended" ON "sessions" USING btree ("ended_at_ms") WHERE "sessions"."ended_at_ms" is not null;--> statement-breakpoint
CREATE UNIQUE INDEX "users_email" ON "users" USING btree ("email");--> statement-breakpoint
CREATE INDEX "users_admins" ON "users" USING btree ("id") WHERE "users"."role" = 'admin' and "users"."status" = 'active';--> statement-breakpoint
CREATE INDEX "users_search" ON "users" USING btree ("created_at_ms","id","search");--> statement-breakpoint
CREATE INDEX "users_unfolded" ON "users" USING btree ("id") WHERE "users"."search" is null;--> statement-breakpoint
CREATE INDEX "users_unverified" ON "users" USING btree ("created_at_ms") WHERE "users"."email_verified_at_ms" is null;