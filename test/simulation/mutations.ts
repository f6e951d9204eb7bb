/** A change to the source that breaks a promise: the simulation must notice. */
export interface Mutation {
  name: string;
  /** From the root of the repository. */
  file: string;
  before: string;
  after: string;
}

export const MUTATIONS: readonly Mutation[] = [];
