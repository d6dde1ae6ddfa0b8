// The way to the master: JSON over the same origin, with an end to every wait.

const WAIT_MS = 9000;
const ACTION_WAIT_MS = 30000;

/** What the master answered, or that nobody did (status 0). */
export class ApiError extends Error {
  constructor(text, status, code) {
    super(text);
    this.status = status;
    this.code = code;
  }

  /** Whether it may be gone by itself in a moment: no master, or a master without its store. */
  get passing() {
    return this.status === 0 || this.status >= 500;
  }
}

export const get = (path) => ask(path, { signal: AbortSignal.timeout(WAIT_MS) });

/** Do what a button says; resolves to what was done. */
export async function act(action) {
  const answer = await ask("/api/actions", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Tenure-Console": "1" },
    body: JSON.stringify(action),
    signal: AbortSignal.timeout(ACTION_WAIT_MS),
  });
  return answer.said;
}

export function query(path, params) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined && one !== "") search.append(name, one);
  }
  return search.size ? `${path}?${search}` : path;
}

async function ask(path, options) {
  let response;
  let text;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
    text = await response.text();
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new ApiError(late ? "no answer in time" : "no master answers here", 0, "UNREACHABLE");
  }
  const body = parsed(text);
  if (!body) throw new ApiError(`the master answered ${response.status} ${response.statusText}`, response.status || 500, "UNREADABLE");
  if (!response.ok) throw new ApiError(body.error?.text || response.statusText, response.status, body.error?.code);
  return body;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
