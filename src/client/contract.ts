export type ErrorCode = string;
export interface Problem {
  type: string;
  title: string;
  status: number;
  code: string;
  detail?: string;
  errors?: { pointer?: string; parameter?: string; detail: string }[];
  requestId: string;
}
export interface User {
  id: string;
  email: string;
  name: string;
}
export interface TokenPair {
  access_token: string;
  refresh_token: string;
  token_type: string;
  expires_in: number;
}
export interface Registration {
  email: string;
  password: string;
  name: string;
  device?: string;
}
export interface Credentials {
  email: string;
  password: string;
  device?: string;
}
export interface PasswordChange {
  currentPassword: string;
  newPassword: string;
}
export type SignedIn = TokenPair & { user: User };
export const IDEMPOTENT_WITH_KEY: readonly string[] = [];
export interface Operations {
  'GET /v1/users/me': { result: User };
  'PATCH /v1/users/me': { body: { name?: string }; result: User };
  'GET /v1/sessions': { result: { items: { id: string; current: boolean }[]; total: number } };
  'DELETE /v1/sessions/{id}': { params: { id: string }; result: undefined };
  'PATCH /v1/users/{id}': { params: { id: string }; body: { role?: string }; result: User };
  'GET /v1/users': { query?: { page?: number; limit?: number; q?: string }; result: { items: User[]; total: number } };
}
