// Calls of the server's tools: MCP over Streamable HTTP, revision 2026-07-28, which knows no sessions.

const VERSION = "2026-07-28";
const STORED = "nomad-build.token";
/** Seconds that an answer may take beyond the time that the call itself asks to wait. */
const GRACE = 30;

let lastId = 0;

/** Why a call has no answer: unauthorised, refused (it is no use to ask again) or unreachable. */
export class CallError extends Error {
  constructor(kind, message, { code, retryAfter } = {}) {
    super(message);
    this.kind = kind;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

export const token = {
  get: () => sessionStorage.getItem(STORED) ?? "",
  set: (text) => sessionStorage.setItem(STORED, text),
  forget: () => sessionStorage.removeItem(STORED),
};

/** The structured answer of a tool. `signal` ends the waiting. */
export async function call(tool, args, signal, secret = token.get()) {
  lastId += 1;
  const id = lastId;
  const headers = {
    Accept: "application/json, text/event-stream",
    "Content-Type": "application/json",
    "MCP-Protocol-Version": VERSION,
    "Mcp-Method": "tools/call",
    "Mcp-Name": tool,
  };
  if (secret) headers.Authorization = `Bearer ${secret}`;
  const _meta = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": { name: "nomad-build-page", version: "1" },
    "io.modelcontextprotocol/clientCapabilities": {},
  };
  const params = { name: tool, arguments: args, _meta };
  const late = AbortSignal.timeout(((args.wait ?? 0) + GRACE) * 1000);
  const signals = signal ? [signal, late] : [late];
  let message;
  try {
    const response = await fetch("mcp", {
      method: "POST",
      headers,
      body: JSON.stringify({ jsonrpc: "2.0", id, method: "tools/call", params }),
      signal: AbortSignal.any(signals),
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
    });
    if (!response.ok) throw await refusal(response);
    message = await answer(response, id);
  } catch (error) {
    if (error instanceof CallError || signal?.aborted) throw error;
    throw new CallError("unreachable", late.aborted ? "the server is slow to answer" : "the server cannot be reached");
  }
  // Who stopped waiting hears nothing any more.
  signal?.throwIfAborted();
  if (message.error) throw new CallError("refused", String(message.error.message));
  return outcome(message.result);
}

/** A file of this server's, whole. `signal` ends the waiting. */
export async function fetchFile(path, signal) {
  const secret = token.get();
  try {
    const response = await fetch(path, {
      headers: secret ? { Authorization: `Bearer ${secret}` } : {},
      signal,
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
    });
    if (!response.ok) throw await refusal(response);
    const file = await response.blob();
    signal.throwIfAborted();
    return file;
  } catch (error) {
    if (error instanceof CallError || signal.aborted) throw error;
    throw new CallError("unreachable", "the server cannot be reached");
  }
}

/** What an answer with another HTTP status says. */
async function refusal(response) {
  const text = (await response.text()).trim().slice(0, 300);
  const retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  if (response.status === 401) return new CallError("unauthorised", text);
  const again = response.status === 429 || response.status >= 500;
  return new CallError(again ? "unreachable" : "refused", text || `the server answers with ${response.status}`, { retryAfter });
}

/** The JSON-RPC message that answers call `id`. */
async function answer(response, id) {
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) return response.json();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    text += value ?? "";
    const events = text.split(/\r\n\r\n|\n\n|\r\r/);
    // The last one is not whole yet.
    text = done ? "" : events.pop();
    for (const event of events) {
      const data = event.split(/\r\n|\n|\r/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
      const message = data.join("").trim() ? JSON.parse(data.join("\n")) : {};
      if (message.id === id && !message.method) {
        reader.cancel().catch(() => {});
        return message;
      }
    }
    if (done) throw new CallError("unreachable", "the answer broke off");
  }
}

/** The answer of the tool, or why it refuses. */
function outcome(result) {
  if (!result.isError) return result.structuredContent;
  const error = result._meta?.["nomad-build/error"] ?? {};
  const faults = (error.faults ?? []).map((fault) => fault.problem).join("; ");
  const text = faults || (result.content ?? []).map((block) => block.text ?? "").join(" ");
  const again = error.code === "backend_unavailable" || error.code === "limit_reached" || error.code === "internal";
  throw new CallError(again ? "unreachable" : "refused", text, { code: error.code, retryAfter: error.retry_after_seconds });
}
