// Calls of the API from a page: the session's CSRF token goes along, and a problem becomes an error.
const csrf = document.querySelector('meta[name="csrf-token"]')?.content;

/** A problem document of the service (RFC 9457); status 0: the service was not reached. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? document.title ?? "");
    this.status = status;
    this.document = document;
  }
}

async function send(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: String(error.message ?? error) });
  }
}

/** The response of a call, whatever it holds; throws Problem. `body` is sent as JSON, unless it is raw. */
export async function request(method, path, body, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (method !== "GET" && csrf) headers["X-CSRF-Token"] = csrf;
  let content = body;
  if (body !== undefined && !(body instanceof Blob || body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    content = JSON.stringify(body);
  }
  const response = await send(path, { ...options, method, headers, body: content });
  if (response.ok) return response;
  throw new Problem(response.status, await response.json().catch(() => ({ title: response.statusText })));
}

/** The answer of a call as JSON, or null where it has no content. */
export async function call(method, path, body, options) {
  const response = await request(method, path, body, options);
  return response.status === 204 ? null : response.json();
}
