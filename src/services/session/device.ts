/** Where a session began. */
export interface Device {
  /** The client's name for itself, or its User-Agent. */
  device: string;
  address: string;
}
