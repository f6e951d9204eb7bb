/** Domains of one provider that share mailboxes. */
const SAME_DOMAIN: Readonly<Record<string, string>> = { 'googlemail.com': 'gmail.com' };

/**
 * The mailbox that an address probably belongs to, for counting alone: without a suffix after a plus sign (RFC 5233) and
 * without dots, which large providers ignore. Two addresses that differ only in these may still belong to two people.
 */
export function mailboxOf(email: string): string {
  const at = email.lastIndexOf('@');
  const [local, domain] = [email.slice(0, at), email.slice(at + 1).toLowerCase()];
  const bare = local.split('+', 1)[0]!.replaceAll('.', '').toLowerCase();
  return `${bare === '' ? local.toLowerCase() : bare}@${SAME_DOMAIN[domain] ?? domain}`;
}
