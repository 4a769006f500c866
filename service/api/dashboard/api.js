// Calls the public API. The browser adds the cookie with the session; an error is a Problem.

/** What the API answers instead: `code` is for programs, the message for people. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body?.detail ?? `The API answered ${status}.`);
    this.status = status;
    this.code = body?.code ?? null;
    this.retryAfterSeconds = Number(retryAfter) || null;
  }
}

/** Called when the session has ended. */
let onEnd = () => {};

export function whenSessionEnds(callback) {
  onEnd = callback;
}

/** Return the address of a path of the API, which may have a prefix. */
export function address(path) {
  return new URL(`.${path}`, document.baseURI);
}

/** Send a request and return the decoded body and the entity tag; raise Problem. */
export async function call(method, path, { body = null, ifMatch = null, signal = null } = {}) {
  const headers = {};
  if (body !== null) headers["Content-Type"] = "application/json";
  if (ifMatch !== null) headers["If-Match"] = ifMatch;
  let response;
  try {
    response = await fetch(address(path), { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The API does not answer." }, null);
  }
  const isJson = /json/.test(response.headers.get("Content-Type") ?? "");
  const decoded = isJson ? await response.json() : null;
  if (response.ok) return { body: decoded, tag: response.headers.get("ETag") };
  const problem = new Problem(response.status, decoded, response.headers.get("Retry-After"));
  if (response.status === 401 && path !== "/dashboard/session") onEnd();
  throw problem;
}

/** Return the query of those parameters that have a value. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}
