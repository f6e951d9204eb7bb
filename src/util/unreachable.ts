/** For a case that the code before it has ruled out. @throws {Error} */
export function unreachable(): never {
  throw new Error('unreachable');
}
