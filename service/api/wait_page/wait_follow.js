// Follows a request until it has its final state: by its stream of events, or by asking again and again.

const MAX_STREAM_FAILURES = 3;
/** Milliseconds without an event or a comment after which a stream counts as dead; the server sends one every 15 s. */
const SILENCE_MS = 40_000;
/** Milliseconds in which a response must begin. */
const RESPONSE_MS = 15_000;
const FIRST_BACKOFF_MS = 1_000;
const MAX_BACKOFF_MS = 30_000;
const POLL_SECONDS = 5;
/** Milliseconds for which a hidden page stays connected. */
const HIDDEN_MS = 300_000;
/** The service refuses these for ever: the page says so and stops. */
const REFUSALS = { 401: "unauthorized", 403: "unauthorized", 404: "absent" };

/** The service answered that it shows the request to nobody with these credentials. */
class RefusedError extends Error {}

/** There was no usable response. */
class FailedError extends Error {
  constructor(message, retryAfterMs = 0) {
    super(message);
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * Follows one request.
 *
 * url: that of the request; `${url}/events` is its stream.
 * ticket: the credentials, or null.
 * onEvent(name, data): called with the events of the stream; a poll is the event `state` or `final`.
 * onConnection(state): `connecting`, `live`, `reconnecting`, `polling` or `paused`.
 * onRefused(why): `unauthorized` or `absent`; nothing follows.
 */
export class Follower {
  constructor({ url, ticket, onEvent, onConnection, onRefused }) {
    Object.assign(this, { url, onEvent, onConnection, onRefused });
    this.headers = ticket ? { Authorization: `Bearer ${ticket}` } : {};
    this.ended = false;
    this.stopping = null;
    this.lastEventId = null;
    this.retryMs = 0;
  }

  /** Begin, and pause while the page is hidden for long. */
  start() {
    let hiding;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(hiding);
      if (document.hidden) hiding = setTimeout(() => this.pause(), HIDDEN_MS);
      else this.resume();
    });
    addEventListener("pageshow", (event) => event.persisted && this.restart());
    addEventListener("online", () => this.restart());
    this.resume();
  }

  pause() {
    if (this.ended || !this.stopping) return;
    this.stopping.abort();
    this.stopping = null;
    this.onConnection("paused");
  }

  resume() {
    if (this.ended || this.stopping) return;
    this.stopping = new AbortController();
    this.run(this.stopping.signal);
  }

  restart() {
    if (!this.stopping) return;
    this.stopping.abort();
    this.stopping = null;
    this.resume();
  }

  async run(signal) {
    try {
      this.onConnection("connecting");
      await this.stream(signal);
      if (!this.ended) await this.poll(signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof RefusedError)) throw error;
      this.ended = true;
      this.onRefused(error.message);
    }
  }

  /** Read streams until the final event, or until several in a row failed. */
  async stream(signal) {
    let failures = 0;
    while (!this.ended && failures < MAX_STREAM_FAILURES) {
      let waitMs = 0;
      try {
        const events = await this.readStream(signal);
        failures = events ? 0 : failures + 1;
      } catch (error) {
        if (signal.aborted || error instanceof RefusedError) throw error;
        failures += 1;
        waitMs = error.retryAfterMs ?? 0;
      }
      if (this.ended) return;
      this.onConnection("reconnecting");
      await sleep(Math.max(waitMs, this.retryMs, backoffMs(failures)), signal);
    }
  }

  /** Read one stream to its end; return how many events it had. */
  async readStream(signal) {
    const silence = new Deadline(signal, RESPONSE_MS);
    let count = 0;
    try {
      const headers = { Accept: "text/event-stream" };
      if (this.lastEventId) headers["Last-Event-ID"] = this.lastEventId;
      const response = await this.fetch(`${this.url}/events`, headers, silence.signal);
      if (response.status !== 200) throw new FailedError(`the stream has status ${response.status}`);
      const parser = new EventParser();
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.ended) return count;
        silence.extend(SILENCE_MS);
        for (const event of parser.push(value)) {
          count += event.data === null ? 0 : 1;
          this.take(event);
        }
      }
    } catch (error) {
      if (count && !signal.aborted) return count; // it broke after it had worked
      throw error;
    } finally {
      silence.end();
    }
  }

  take({ id, name, data, retryMs }) {
    if (retryMs !== null) this.retryMs = retryMs;
    if (id !== null) this.lastEventId = id;
    if (data === null) return;
    this.onConnection("live");
    if (name === "final" || name === "unknown") this.ended = true;
    this.onEvent(name, JSON.parse(data));
  }

  /** Ask for the state until it is final, when the service says. */
  async poll(signal) {
    let tag = null;
    let seconds = POLL_SECONDS;
    let failures = 0;
    while (!this.ended) {
      const deadline = new Deadline(signal, RESPONSE_MS);
      let waitMs = 0;
      try {
        const response = await this.fetch(this.url, tag ? { "If-None-Match": tag } : {}, deadline.signal);
        if (response.status === 200) {
          const view = await response.json();
          tag = response.headers.get("ETag");
          seconds = view.refresh_after_seconds ?? POLL_SECONDS;
          this.ended = view.decided_at !== null;
          this.onEvent(this.ended ? "final" : "state", view);
        }
        if (this.ended) return;
        failures = 0;
        this.onConnection("polling");
      } catch (error) {
        if (signal.aborted || error instanceof RefusedError) throw error;
        failures += 1;
        waitMs = error.retryAfterMs ?? 0;
        this.onConnection("reconnecting");
      } finally {
        deadline.end();
      }
      await sleep(failures ? Math.max(waitMs, backoffMs(failures)) : seconds * 1_000, signal);
    }
  }

  /** Return a response that says something about the request; throw RefusedError or FailedError. */
  async fetch(url, headers, signal) {
    const response = await fetch(url, {
      headers: { ...this.headers, ...headers },
      cache: "no-store",
      credentials: "omit",
      referrerPolicy: "no-referrer",
      signal,
    });
    if (response.ok || response.status === 304) return response;
    if (REFUSALS[response.status]) throw new RefusedError(REFUSALS[response.status]);
    const retryAfterMs = 1_000 * (Number(response.headers.get("Retry-After")) || 0);
    throw new FailedError(`the service answered ${response.status}`, spread(retryAfterMs));
  }
}

/** A signal that is aborted with another one, or after some time. */
class Deadline {
  constructor(signal, ms) {
    this.controller = new AbortController();
    this.signal = this.controller.signal;
    this.abort = () => this.controller.abort();
    this.outer = signal;
    signal.addEventListener("abort", this.abort);
    this.extend(ms);
  }

  extend(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(this.abort, ms);
  }

  /** End what still uses the signal. */
  end() {
    clearTimeout(this.timer);
    this.outer.removeEventListener("abort", this.abort);
    this.abort();
  }
}

/** Splits the bytes of a stream into its events (HTML Standard, section 9.2.6). */
export class EventParser {
  constructor() {
    this.decoder = new TextDecoder();
    this.rest = "";
    this.begin();
  }

  begin() {
    this.event = { id: null, name: "message", data: null, retryMs: null };
  }

  /** Yield the events that `bytes` complete. */
  *push(bytes) {
    this.rest += this.decoder.decode(bytes, { stream: true });
    const lines = this.rest.split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) {
      if (line !== "") {
        this.takeLine(line);
        continue;
      }
      const { event } = this;
      this.begin();
      if (event.data !== null || event.retryMs !== null || event.id !== null) yield event;
    }
  }

  takeLine(line) {
    const colon = line.indexOf(":");
    const [field, value] = colon < 0 ? [line, ""] : [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
    if (field === "id") this.event.id = value;
    else if (field === "event") this.event.name = value;
    else if (field === "data") this.event.data = this.event.data === null ? value : `${this.event.data}\n${value}`;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.event.retryMs = Number(value);
  }
}

/** Return how long to wait after so many failures: longer each time, and not the same for all pages. */
function backoffMs(failures) {
  return spread(Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** failures));
}

/** Return a time between `ms` and half as much again. */
function spread(ms) {
  return ms * (1 + Math.random() / 2);
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}
