import { describe } from 'vitest';
import { contract } from './suite.ts';

describe('the embedded engine', () => {
  contract(async () => ({}));
});
