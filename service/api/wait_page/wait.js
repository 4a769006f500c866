// The page of a waiting user: takes what it needs from its address, follows the request and shows it.

import { Follower } from "./wait_follow.js";
import { chooseLanguage, texts } from "./wait_texts.js";

/** Milliseconds between two announcements of the position to a screen reader. */
const ANNOUNCE_MS = 60_000;

const element = (id) => document.getElementById(id);
const address = readAddress();
const shown = {
  language: chooseLanguage([address.language, ...navigator.languages]),
  connection: "connecting",
  /** the last state of the request */
  view: null,
  /** the last progress of its partition */
  progress: null,
  /** why there is nothing to show: `unknown`, `absent` or `unauthorized` */
  refused: null,
  /** the records ahead when the page was first opened, and now: neither grows */
  firstAhead: address.firstAhead,
  ahead: null,
};

/** Return the request, the ticket and the language that the address names; the ticket leaves the address bar. */
function readAddress() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const request = fragment.get("request") ?? decoded(location.pathname.split("/").pop());
  const store = storeOf(request);
  const given = fragment.get("ticket");
  if (given !== null) {
    store.write({ ...store.read(), ticket: given });
    fragment.delete("ticket");
    const rest = fragment.toString();
    history.replaceState(null, "", location.pathname + location.search + (rest && `#${rest}`));
  }
  const { ticket = given, firstAhead = null } = store.read();
  const language = new URLSearchParams(location.search).get("lang") ?? "";
  return { request, ticket: /^[\x21-\x7e]+$/.test(ticket ?? "") ? ticket : null, language, firstAhead, store };
}

function decoded(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** Return what this tab remembers of a request, so that a reload can go on. A browser may forbid it in a frame. */
function storeOf(request) {
  const key = `coupon-request ${request}`;
  return {
    read() {
      try {
        return JSON.parse(sessionStorage.getItem(key)) ?? {};
      } catch {
        return {};
      }
    },
    write(value) {
      try {
        sessionStorage.setItem(key, JSON.stringify(value));
      } catch {
        // the page works without it, until it is loaded again
      }
    },
  };
}

function onEvent(name, data) {
  if (name === "progress") shown.progress = data;
  else if (name === "unknown") shown.refused = "unknown";
  else if (name === "state" || name === "final") shown.view = data;
  else return; // of a later version
  if (name === "final") shown.connection = "closed";
  if (name === "unknown") shown.connection = "stopped";
  updatePosition();
  showSoon();
  if (name !== "progress") tellParent();
}

function updatePosition() {
  const { view, progress } = shown;
  if (view?.state !== "queued") return;
  const known = [shown.ahead, view.position];
  if (view.offset !== null && progress?.partition === view.partition) {
    known.push(Math.max(0, view.offset - progress.next_offset));
  }
  const numbers = known.filter((number) => number !== null);
  if (numbers.length === 0) return;
  shown.ahead = Math.min(...numbers);
  if (shown.firstAhead === null || shown.firstAhead < shown.ahead) {
    shown.firstAhead = shown.ahead;
    address.store.write({ ...address.store.read(), firstAhead: shown.firstAhead });
  }
}

/** Return the range of seconds that the request waits, or null. */
function waitSeconds() {
  const rate = shown.progress?.records_per_second;
  if (shown.ahead === null || !rate) return shown.view.eta_seconds;
  if (rate.min <= 0) return null;
  return { min: shown.ahead / rate.max, max: shown.ahead / rate.min };
}

/** Return what the page says: a phase, a heading, a detail, and more while the request waits. */
function describe(text, format) {
  const { view, refused, ahead } = shown;
  if (refused) return { phase: refused === "unauthorized" ? "stopped" : "bad", heading: text[refused] };
  if (view === null) return { phase: "waiting", heading: text.loading };
  if (view.state === "issued") {
    const [heading, detail] = text.issued;
    return { phase: "good", heading: [heading, detail(format(view.sequence))] };
  }
  if (view.code !== null) {
    const [heading, detail] = text.endedOtherwise;
    return { phase: "bad", heading: text.ended[view.code] ?? [heading, detail(view.code)] };
  }
  if (view.state !== "queued") return { phase: "waiting", heading: text[view.state] ?? text.loading, note: text.note };
  const outlook = view.outlook === "unlikely" ? text.unlikely : "";
  if (ahead === 0) return { phase: "waiting", heading: text.turn, outlook, note: text.note };
  const range = waitSeconds();
  return {
    phase: "waiting",
    heading: [text.inLine, ahead === null ? text.aheadUnknown : ""],
    ahead,
    wait: range === null ? text.waitUnknown : text.wait(range),
    outlook,
    note: text.note,
  };
}

function show() {
  const { language, view, connection } = shown;
  const text = texts[language];
  const format = (number) => new Intl.NumberFormat(language).format(number);
  const said = describe(text, format);
  const [heading, detail] = said.heading;
  document.documentElement.lang = language;
  document.documentElement.dataset.phase = said.phase;
  const hasNumber = typeof said.ahead === "number";
  document.title = hasNumber ? `${format(said.ahead)} – ${text.title}` : heading;
  write("heading", heading);
  write("detail", detail);
  write("wait", said.wait);
  write("outlook", said.outlook);
  write("note", said.note);
  write("ahead-number", hasNumber ? format(said.ahead) : "");
  write("ahead-label", hasNumber ? text.ahead(said.ahead) : "");
  element("ahead").hidden = !hasNumber;
  showProgress(hasNumber, text.progress);
  write("connection", text.connection[connection]);
  element("connection").dataset.connection = connection;
  write("requested-label", text.requested);
  write("request-label", text.request);
  write("request", address.request);
  write("requested", view === null ? "" : timeInWords(view.requested_at, language));
  element("facts").hidden = view === null;
  const other = otherLanguage();
  element("language").lang = other;
  write("language", texts[other].name);
  announce(said, hasNumber ? text.aheadInWords(said.ahead, format(said.ahead)) : "");
}

function write(id, text = "") {
  const target = element(id);
  if (target.textContent !== text) target.textContent = text;
  if (target.matches("p")) target.hidden = text === "" && !target.matches("[role]");
}

/** Show which part of the line is behind the user, once it is not nothing. */
function showProgress(hasNumber, name) {
  const progress = element("progress");
  progress.hidden = !hasNumber || shown.ahead >= shown.firstAhead;
  progress.setAttribute("aria-label", name);
  if (!progress.hidden) progress.value = 1 - shown.ahead / shown.firstAhead;
}

function timeInWords(time, language) {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(time));
}

const announced = { words: "", atMs: -Infinity };

/** Write what a screen reader says: each change in words at once, and the numbers now and then. */
function announce({ heading, outlook = "" }, position) {
  const words = [...heading, outlook].join(" ");
  const now = performance.now();
  if (words === announced.words && (position === "" || now - announced.atMs < ANNOUNCE_MS)) return;
  Object.assign(announced, { words, atMs: now });
  write("announcement", [...heading, position, outlook].filter(Boolean).join(" "));
}

let showing = 0;

/** Show once before the browser next paints; a hidden page shows its title now. */
function showSoon() {
  cancelAnimationFrame(showing);
  if (document.hidden) show();
  else showing = requestAnimationFrame(show);
}

/** Tell the page that frames this one. Only sites of CORS_ORIGINS can frame it (Content-Security-Policy). */
function tellParent() {
  if (window.parent === window) return;
  const origin = location.ancestorOrigins?.[0] ?? originOf(document.referrer);
  const state = shown.refused ?? shown.view.state;
  if (origin) window.parent.postMessage({ type: "coupon-request", state }, origin);
}

function originOf(url) {
  try {
    return new URL(url).origin;
  } catch {
    return null;
  }
}

function otherLanguage() {
  const tags = Object.keys(texts);
  return tags[(tags.indexOf(shown.language) + 1) % tags.length];
}

element("language").addEventListener("click", () => {
  shown.language = otherLanguage();
  const search = new URLSearchParams(location.search);
  search.set("lang", shown.language);
  history.replaceState(null, "", `?${search}${location.hash}`);
  show();
});

addEventListener("hashchange", () => location.reload()); // the shop opens the page again, with another ticket

const api = new URL(document.querySelector("meta[name=coupon-api]").content, document.baseURI);
new Follower({
  url: new URL(`issuances/${encodeURIComponent(address.request)}`, api).href,
  ticket: address.ticket,
  onEvent,
  onConnection(state) {
    shown.connection = state;
    showSoon();
  },
  onRefused(why) {
    shown.refused = why;
    shown.connection = "stopped";
    showSoon();
    tellParent();
  },
}).start();
show();
