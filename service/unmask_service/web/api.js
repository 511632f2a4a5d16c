// The server's public API. Addresses are relative to the page, so that it works behind a path prefix too.

// how this page asks: for events, of a job that survives a lost connection
const WAY = { stream: true, detach: true };

let key = "";

/** The API key to send from now on; "" sends none. It is kept in memory alone. */
export function useKey(value) {
  key = value;
}

/** An answer of the server's that is not 2xx. The message is a sentence for people. */
export class ApiError extends Error {
  constructor(status, { message, param = null, code = null }, retryAfter = null) {
    super(message);
    Object.assign(this, { status, param, code, retryAfter });
  }
}

/** The cards of the models that are served. The first is the default. */
export async function modelCards() {
  return (await (await call("v1/models")).json()).data;
}

/** The model's README, in Markdown; null where it has none. */
export async function readme(id) {
  try {
    return await (await call(`v1/models/${encodeURIComponent(id)}/card`)).text();
  } catch (error) {
    if (error.code === "card_not_found") return null;
    throw error;
  }
}

/** A request's schedule and cost, without running it. */
export async function plan(body, signal) {
  return (await call("plan", { method: "POST", body: { ...body, ...WAY }, signal })).json();
}

/** Begin a generation or a score, at its path. The same idempotency key again gives the same job. */
export function startJob(path, body, idempotencyKey, signal) {
  const headers = { "Idempotency-Key": idempotencyKey };
  return call(path, { method: "POST", body: { ...body, ...WAY }, headers, signal });
}

/** The events of a job after the one with this id. */
export function eventsAfter(path, id, lastEventId, signal) {
  return call(`${path}/${id}/events`, { headers: { "Last-Event-ID": String(lastEventId) }, signal });
}

/** An animated PNG of a generation's pictures as they unmask. */
export async function film(id) {
  return (await call(`generate/${id}/film.png?scale=4`)).blob();
}

/** Stop a job. `keepalive` lets the call outlive the page. */
export async function cancelJob(path, id, keepalive = false) {
  return (await call(`${path}/${id}`, { method: "DELETE", keepalive })).json();
}

async function call(path, { method = "GET", body, headers = {}, ...options } = {}) {
  const sent = { ...headers };
  if (body) sent["Content-Type"] = "application/json";
  if (key) sent.Authorization = `Bearer ${key}`;
  const response = await fetch(path, { method, headers: sent, body: body && JSON.stringify(body), ...options });
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const told = await response.json().catch(() => null);
  const error = told?.error ?? { message: `the server answered ${response.status} ${response.statusText}` };
  return new ApiError(response.status, error, retryAfter);
}
