CREATE TABLE `known_origins` (
	`user_id` text NOT NULL,
	`origin` text NOT NULL,
	`failed` integer DEFAULT 0 NOT NULL,
	`last_at_ms` integer NOT NULL,
	PRIMARY KEY(`user_id`, `origin`)
);
--> statement-breakpoint
CREATE TABLE `login_failures` (
	`account` text PRIMARY KEY NOT NULL,
	`failed` integer NOT NULL,
	`last_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `login_failures_last` ON `login_failures` (`last_at_ms`);--> statement-breakpoint
ALTER TABLE `one_time_tokens` ADD `former_email` text;--> statement-breakpoint
CREATE INDEX `one_time_tokens_reserved` ON `one_time_tokens` (`email`) WHERE "one_time_tokens"."purpose" = 'email-undo';--> statement-breakpoint
ALTER TABLE `sessions` ADD `token_id` text;--> statement-breakpoint
ALTER TABLE `sessions` ADD `authenticated_at_ms` integer;--> statement-breakpoint
ALTER TABLE `sessions` ADD `password_failures` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
CREATE INDEX `users_unverified` ON `users` (`created_at_ms`) WHERE "users"."email_verified_at_ms" is null;