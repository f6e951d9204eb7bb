CREATE TABLE `redis_state` (
	`id` integer PRIMARY KEY NOT NULL,
	`beat` integer DEFAULT 0 NOT NULL,
	`repeated_seq` integer DEFAULT 0 NOT NULL,
	`lost_seq` integer,
	`lost_done_seq` integer,
	`lost_sessions_ms` integer,
	`lease_holder` text,
	`lease_until_ms` integer DEFAULT 0 NOT NULL
);
--> statement-breakpoint
INSERT INTO `redis_state` (`id`) VALUES (1);--> statement-breakpoint
CREATE TABLE `__new_outbox` (
	`seq` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`id` text NOT NULL,
	`message` text NOT NULL,
	`state` text DEFAULT 'pending' NOT NULL,
	`due_at_ms` integer NOT NULL,
	`created_at_ms` integer NOT NULL,
	`expires_at_ms` integer NOT NULL
);
--> statement-breakpoint
INSERT INTO `__new_outbox`("id", "message", "state", "due_at_ms", "created_at_ms", "expires_at_ms") SELECT "id", "message", "state", "due_at_ms", "created_at_ms", "expires_at_ms" FROM `outbox` ORDER BY rowid;--> statement-breakpoint
DROP TABLE `outbox`;--> statement-breakpoint
ALTER TABLE `__new_outbox` RENAME TO `outbox`;--> statement-breakpoint
CREATE UNIQUE INDEX `outbox_id` ON `outbox` (`id`);--> statement-breakpoint
CREATE INDEX `outbox_pending` ON `outbox` (`due_at_ms`,`seq`) WHERE "outbox"."state" = 'pending';--> statement-breakpoint
CREATE INDEX `sessions_ended` ON `sessions` (`ended_at_ms`) WHERE "sessions"."ended_at_ms" is not null;
