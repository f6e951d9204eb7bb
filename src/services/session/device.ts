/** Where a session was begun. */
export interface Device {
  /** What the client calls itself, or its User-Agent. */
  device: string;
  address: string;
}
