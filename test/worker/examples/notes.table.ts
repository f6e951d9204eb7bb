import { index, integer, table, text } from '#db';

/** Notes of users. */
export const notes = table(
  'notes',
  {
    id: text('id').primaryKey(),
    userId: text('user_id').notNull(),
    text: text('text').notNull(),
    createdAtMs: integer('created_at_ms').notNull(),
  },
  (t) => [index('notes_user').on(t.userId, t.createdAtMs)],
);
