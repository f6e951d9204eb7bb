CREATE TABLE `audit` (
	`seq` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`at_ms` integer NOT NULL,
	`by` text NOT NULL,
	`action` text NOT NULL,
	`user_id` text,
	`detail` text DEFAULT '{}' NOT NULL
);
--> statement-breakpoint
CREATE INDEX `audit_user` ON `audit` (`user_id`,`seq`);--> statement-breakpoint
CREATE TABLE `limit_overrides` (
	`policy` text PRIMARY KEY NOT NULL,
	`windows` text NOT NULL,
	`by` text NOT NULL,
	`at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `users_admins` ON `users` (`id`) WHERE "users"."role" = 'admin' and "users"."status" = 'active';