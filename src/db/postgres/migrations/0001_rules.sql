-- By hand. Texts are compared byte by byte, as in SQLite: 0000_init says so of each column.

-- The search text may be longer than an index entry of PostgreSQL. Lists are in this order.
DROP INDEX "users_search";--> statement-breakpoint
CREATE INDEX "users_search" ON "users" ("created_at_ms", "id");--> statement-breakpoint

-- The number of users. A row that every registration changes would have them all wait for each other, so each adds a row of its
-- own; one statement in a hundred sums them up.
DROP TABLE "counters";--> statement-breakpoint
CREATE TABLE "counter_changes" ("name" text COLLATE "C" NOT NULL, "change" bigint NOT NULL);--> statement-breakpoint
CREATE VIEW "counters" AS
  SELECT 'users'::text AS "name", coalesce(sum("change"), 0)::bigint AS "value" FROM "counter_changes" WHERE "name" = 'users';
--> statement-breakpoint
CREATE FUNCTION "users_counted"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  "changed" bigint;
BEGIN
  SELECT count(*) INTO "changed" FROM "rows";
  IF "changed" > 0 THEN
    INSERT INTO "counter_changes" VALUES ('users', CASE TG_OP WHEN 'INSERT' THEN "changed" ELSE -"changed" END);
  END IF;
  IF random() < 0.01 THEN
    WITH "summed" AS (DELETE FROM "counter_changes" RETURNING "name", "change")
      INSERT INTO "counter_changes" SELECT "name", sum("change") FROM "summed" GROUP BY "name";
  END IF;
  RETURN NULL;
END $$;
--> statement-breakpoint
CREATE TRIGGER "users_counted_in" AFTER INSERT ON "users" REFERENCING NEW TABLE AS "rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "users_counted"();--> statement-breakpoint
CREATE TRIGGER "users_counted_out" AFTER DELETE ON "users" REFERENCING OLD TABLE AS "rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "users_counted"();--> statement-breakpoint

-- A statement that changes name or address and does not know of `search` leaves no text that belongs to the former name.
CREATE FUNCTION "users_unfold"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW."search" := NULL;
  RETURN NEW;
END $$;
--> statement-breakpoint
CREATE TRIGGER "users_unfold" BEFORE UPDATE OF "name", "email" ON "users" FOR EACH ROW
  WHEN (NEW."search" IS NOT DISTINCT FROM OLD."search"
    AND (NEW."name" IS DISTINCT FROM OLD."name" OR NEW."email" IS DISTINCT FROM OLD."email"))
  EXECUTE FUNCTION "users_unfold"();--> statement-breakpoint

-- What `/ready` reads twice: a response from a cache of queries shows the same time again.
CREATE VIEW "clock" AS SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS "now";--> statement-breakpoint

INSERT INTO "redis_state" ("id") VALUES (1);
