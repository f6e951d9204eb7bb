import { defineConfig } from 'drizzle-kit';

// Used with the condition `postgres`: see `npm run db:generate`.
export default defineConfig({
  dialect: 'postgresql',
  schema: './src/db/schema.ts',
  out: './src/db/postgres/migrations',
});
