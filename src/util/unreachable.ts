/** For a case that the lines before have ruled out. @throws {Error} */
export function unreachable(): never {
  throw new Error('unreachable');
}
