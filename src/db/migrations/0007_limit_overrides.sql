-- Nothing has been written into the former table.
DROP TABLE `limit_overrides`;
--> statement-breakpoint
CREATE TABLE `limit_overrides` (
	`policy` text PRIMARY KEY NOT NULL,
	`windows` text,
	`by` text NOT NULL,
	`at_ms` integer NOT NULL,
	`version` integer NOT NULL
);
