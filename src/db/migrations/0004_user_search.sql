DROP INDEX `users_created`;--> statement-breakpoint
ALTER TABLE `users` ADD `search` text;--> statement-breakpoint
CREATE INDEX `users_search` ON `users` (`created_at_ms`,`id`,`search`);--> statement-breakpoint
CREATE INDEX `users_unfolded` ON `users` (`id`) WHERE "users"."search" is null;--> statement-breakpoint
-- By hand: a statement that changes name or address and does not know of `search` (the version before this one, an operator's
-- own SQL) leaves no text that belongs to the former name.
CREATE TRIGGER `users_unfold` AFTER UPDATE OF `name`, `email` ON `users`
WHEN NEW.`search` IS OLD.`search` AND (NEW.`name` IS NOT OLD.`name` OR NEW.`email` IS NOT OLD.`email`)
BEGIN
  UPDATE `users` SET `search` = NULL WHERE `id` = NEW.`id`;
END;
