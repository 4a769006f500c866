// Follows the overview. The visible tabs of a browser share one stream; a hidden tab neither reads nor shows.

const NAME = "coupons-dashboard";
/** Milliseconds after which a stream that was refused is opened again. */
const AGAIN_MS = 3_000;
/** Milliseconds without an overview after which the page says so. */
const SILENT_MS = 3_500;

export class Live {
  /**
   * onOverview(overview); onConnection(state): connecting, live, silent, paused; onLogOut(): in another tab;
   * isAllowed(): resolves to whether the session is still valid, after the stream was refused.
   */
  constructor(url, { onOverview, onConnection, onLogOut, isAllowed }) {
    Object.assign(this, { url, onOverview, onConnection, isAllowed });
    this.channel = new BroadcastChannel(NAME);
    this.channel.onmessage = ({ data }) => (data.overview ? this.take(data.overview) : onLogOut());
    this.following = null;
    this.silence = null;
    this.onVisibility = () => (document.hidden ? this.pause() : this.follow());
    document.addEventListener("visibilitychange", this.onVisibility);
    this.onVisibility();
  }

  /** End for good. */
  close() {
    document.removeEventListener("visibilitychange", this.onVisibility);
    this.pause();
    this.channel.close();
  }

  /** Let the other tabs end, too: they have the same session, and their streams go on. */
  announceLogOut() {
    this.channel.postMessage({ overview: null });
  }

  /** Wait for the turn to open the stream; meanwhile another tab sends what it gets. */
  follow() {
    if (this.following !== null) return;
    this.following = new AbortController();
    const { signal } = this.following;
    this.say("connecting");
    const lead = () => this.lead(signal);
    if (!navigator.locks) lead(); // without TLS a tab has a stream of its own
    else navigator.locks.request(NAME, { signal }, lead).catch(() => {});
  }

  pause() {
    this.following?.abort();
    this.following = null;
    this.say("paused");
  }

  /** Keep the stream open until the tab is hidden or closed. */
  async lead(signal) {
    while (!signal.aborted) {
      await this.stream(signal);
      if (signal.aborted || !(await this.isAllowed())) return;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  /** Return when the stream was refused; the browser connects again by itself after every other end. */
  stream(signal) {
    return new Promise((resolve) => {
      const source = new EventSource(this.url);
      const end = () => {
        source.close();
        resolve();
      };
      signal.addEventListener("abort", end, { once: true });
      source.addEventListener("overview", ({ data }) => {
        const overview = JSON.parse(data);
        this.channel.postMessage({ overview });
        this.take(overview);
      });
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) end();
      };
    });
  }

  take(overview) {
    if (document.hidden) return;
    this.say("live");
    this.onOverview(overview);
  }

  say(connection) {
    clearTimeout(this.silence);
    if (connection !== "paused") this.silence = setTimeout(() => this.onConnection("silent"), SILENT_MS);
    this.onConnection(connection);
  }
}
