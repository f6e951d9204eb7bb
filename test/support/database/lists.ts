import { asc, desc, eq, ne, sql } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';

import type { Database } from '../../../src/db/client';
import { POSITION_FUNCTION, rowsOf } from '../../../src/db/portable';
import { audit, sessions } from '../../../src/db/schema';
import { createAuditService } from '../../../src/services/audit.service';
import { createAdministration } from '../../../src/services/session/administration';
import { networkOfAddress } from '../../../src/util/networkSql';

/**
 * Lists of services whose SQL engines could take differently, and other text that is computed by the database.
 *
 * @param open a database as one request has it, which no other test writes meanwhile
 */
export function listsContract(open: () => Database): void {
  describe('a list in pages has an exact total on each, and lists each row once', () => {
    test.each([
      ['the audit of one account', 'audited', 60],
      ['the audit of all', undefined, 240],
    ])('%s', async (_, userId, total) => {
      const database = open();
      await database.run((db) => db.delete(audit));
      const entries = Array.from({ length: 240 }, (__, index) => ({
        atMs: index,
        by: 'someone',
        action: 'renamed' as const,
        userId: index % 4 === 0 ? 'audited' : null,
      }));
      await database.batch((db) => entries.map((entry) => db.insert(audit).values(entry)));
      const service = createAuditService({ database, now: Date.now });
      const listed: number[] = [];
      for (let page = 1; page <= Math.ceil(total / 25); page += 1) {
        const list = await service.list({ page, limit: 25, userId });
        expect(list.total).toBe(total);
        listed.push(...list.items.map(({ seq }) => seq));
      }
      const expected = await database.run((db) => {
        const all = db.select({ seq: audit.seq }).from(audit);
        return (userId === undefined ? all : all.where(eq(audit.userId, userId))).orderBy(desc(audit.seq));
      });
      expect(listed).toEqual(expected.map(({ seq }) => seq));
      expect(await service.list({ page: 99, limit: 25, userId })).toEqual({ items: [], total });
      expect(await service.list({ page: 1, limit: 25, userId: 'nobody' })).toEqual({ items: [], total: 0 });
    });

    test("a user's sessions", async () => {
      const database = open();
      const rows = Array.from({ length: 51 }, (_, index) => ({
        id: `with-pages.${index}`,
        userId: 'with-pages',
        // One names no device.
        device: index === 0 ? '' : 'Phone',
        address: '',
        createdAtMs: Math.floor(index / 3),
        lastSeenAtMs: 1,
        expiresAtMs: 9 - index,
        epoch: 1,
      }));
      await database.batch((db) => rows.map((row) => db.insert(sessions).values(row)));
      const deps = { database, lastSeen: async () => new Map(), idleMs: 1, now: () => 10 };
      const service = createAdministration(deps as unknown as Parameters<typeof createAdministration>[0]);
      const listed: string[] = [];
      for (let page = 1; page <= 3; page += 1) {
        const list = await service.history('with-pages', { page, limit: 20 });
        expect(list.total).toBe(50);
        listed.push(...list.items.map(({ id }) => id));
      }
      const expected = await database.run((db) =>
        db
          .select({ id: sessions.id })
          .from(sessions)
          .where(sql`${eq(sessions.userId, 'with-pages')} and ${ne(sessions.device, '')}`)
          .orderBy(desc(sessions.createdAtMs), asc(sessions.id)),
      );
      expect(listed).toEqual(expected.map(({ id }) => id));
      expect(await service.history('with-pages', { page: 4, limit: 20 })).toEqual({ items: [], total: 50 });
    });
  });

  test('an address is cut to its network', async () => {
    const networks = {
      '203.0.113.77': '203.0.113.0/24',
      '10.0.0.0': '10.0.0.0/24',
      '2001:db8:1:2:3:4:5:6': '2001:db8:1::/48',
      '2001:db8::1': '2001:db8::/48',
      '2001:db8:5::1': '2001:db8:5::/48',
      '::1': '::/48',
      '203.0.113.0/24': '203.0.113.0/24',
      '2001:db8::/48': '2001:db8::/48',
      unknown: 'unknown',
      '': '',
    };
    const given = rowsOf(
      'given',
      ['address'],
      Object.keys(networks).map((address) => ({ address })),
    );
    const network = sql<string>`${sql.raw(networkOfAddress(POSITION_FUNCTION))}`.as('network');
    const found = await open().run((db) =>
      db.select({ address: sql<string>`address`.as('address'), network }).from(given),
    );
    expect(Object.fromEntries(found.map((row) => [row.address, row.network]))).toEqual(networks);
  });
}
