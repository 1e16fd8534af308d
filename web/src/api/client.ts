/** The API: a client that is typed by its document, and one kind of error. */
import createClient, { type Middleware } from 'openapi-fetch';

import type { components, paths } from './schema';

export type Schemas = components['schemas'];
type Problem = Schemas['Problem'];

/** What a refusal, a failure or silence looks like here. */
export class ApiError extends Error {
  readonly status: number;
  /** Stable name; `unreachable`, `timeout` and `unreadable` are our own. */
  readonly code: string;
  readonly hint: string | undefined;
  readonly requestId: string | undefined;

  constructor(problem: Pick<Problem, 'status' | 'code' | 'detail'> & Partial<Problem>) {
    super(problem.detail);
    this.status = problem.status;
    this.code = problem.code;
    this.hint = problem.hint ?? undefined;
    this.requestId = problem.request_id ?? undefined;
  }

  /** The server may do it yet, or have done it: nobody knows. */
  get silent(): boolean {
    return this.status === 0;
  }
}

/** A request that takes longer is given up; waits and uploads bring a signal of their own. */
const PATIENCE = 20_000;

const timed: Middleware = {
  onRequest({ request }) {
    if (request.headers.has('x-patient')) {
      request.headers.delete('x-patient');
      return request;
    }
    return new Request(request, { signal: AbortSignal.any([request.signal, AbortSignal.timeout(PATIENCE)]) });
  },
};

export const client = createClient<paths>({ baseUrl: '/', credentials: 'same-origin' });
client.use(timed);

/** Asks for the sign-in that a 401 wants; true when somebody has signed in and the request may be sent again. */
let reauthenticate: () => Promise<boolean> = async () => false;
export function onUnauthenticated(ask: () => Promise<boolean>): void {
  reauthenticate = ask;
}

type Answered<T> = { data?: T; error?: unknown; response: Response };

/** The answer, or an ApiError. A request that was refused for want of a session is sent again after the next sign-in. */
export async function call<T>(request: () => Promise<Answered<T>>): Promise<T> {
  const answer = await attempt(request);
  if (answer.response.status === 401 && (await reauthenticate())) {
    return unwrap(await attempt(request));
  }
  return unwrap(answer);
}

/** The same without asking for a sign-in. */
export async function ask<T>(request: () => Promise<Answered<T>>): Promise<T> {
  return unwrap(await attempt(request));
}

async function attempt<T>(request: () => Promise<Answered<T>>): Promise<Answered<T>> {
  try {
    return await request();
  } catch (error) {
    throw failure(error);
  }
}

/** Of what `fetch` throws. */
export function failure(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof DOMException && error.name === 'TimeoutError') {
    return new ApiError({ status: 0, code: 'timeout', detail: 'the server does not answer', hint: 'it may be busy: what you see is refreshed when it answers again' });
  }
  if (error instanceof SyntaxError) {
    return new ApiError({ status: 0, code: 'unreadable', detail: 'the answer of the server cannot be read', hint: 'something between here and the server may have changed it' });
  }
  return new ApiError({ status: 0, code: 'unreachable', detail: 'the server cannot be reached', hint: 'it may be starting again: this page tries by itself' });
}

function unwrap<T>(answer: Answered<T>): T {
  if (answer.response.ok) return answer.data as T;
  throw refusal(answer.error, answer.response.status);
}

/** Of an answer that is none of success. */
export function refusal(body: unknown, status: number): ApiError {
  const problem = body as Partial<Problem> | undefined;
  if (problem && typeof problem === 'object' && typeof problem.detail === 'string' && typeof problem.code === 'string') {
    return new ApiError({ ...problem, status, code: problem.code, detail: problem.detail });
  }
  const unavailable = status >= 500;
  return new ApiError({
    status,
    code: unavailable ? 'unavailable' : 'unexpected',
    detail: unavailable ? `the server failed (${status})` : `the server answered ${status}`,
    hint: unavailable ? 'try again; if it stays so, look at the log of berth-server' : undefined,
  });
}

/** A request that the client has no types for: streams, uploads, text. Refused ones become errors. */
export async function send(path: string, init: RequestInit & { patient?: boolean } = {}): Promise<Response> {
  const { patient, ...rest } = init;
  const signals = [rest.signal, patient ? undefined : AbortSignal.timeout(PATIENCE)].filter((signal) => !!signal);
  let response: Response;
  try {
    response = await fetch(path, { credentials: 'same-origin', ...rest, signal: signals.length ? AbortSignal.any(signals) : undefined });
  } catch (error) {
    throw failure(error);
  }
  if (response.ok) return response;
  throw refusal(await response.json().catch(() => undefined), response.status);
}
