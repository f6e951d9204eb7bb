import * as z from 'zod';

import { describeOwnedRows } from '../../../src/routes/contract/ownedRows';

describeOwnedRows('/v1/notes', z.object({ text: z.string() }));
