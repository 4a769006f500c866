// One request: its state, and what happened to it.

import { call } from "./api.js";
import { outcome } from "./dialog.js";
import { facts, h, label, number, setChildren, time } from "./dom.js";
import { repeat } from "./repeat.js";

/** Milliseconds between two reads of a request. */
const AGAIN_MS = 1_000;
/** Milliseconds for which a request is read on after it is final: its notices and its dead letter follow later. */
const AFTER_FINAL_MS = 60_000;
const FINAL = ["issued", "refused", "dead"];
/** What the kind of an event means. */
const KINDS = {
  requested: "Requested",
  appended: "Appended to the log",
  attempt_failed: "Attempt failed",
  decided: "Decided",
  forwarded: "Written to the topic of dead letters",
  replayed: "Replayed by an operator",
  discarded: "Discarded by an operator",
  notice_failed: "Notice failed",
  notice_delivered: "Notice delivered",
};
/** Fields of an event that are shown in its heading. */
const IN_HEADING = new Set(["at", "kind"]);

export function openRequest(main, _context, id) {
  const input = h("input", { id: "request-id", type: "search", required: true, spellcheck: "false", autocomplete: "off", value: id ?? "" });
  const form = h("form", { class: "filter", submit: search },
    h("p", { class: "wide" }, h("label", { for: "request-id" }, "Request id"), input), h("button", { type: "submit" }, "Show"));
  const result = outcome();
  const state = h("div");
  const timeline = h("ol", { class: "timeline" });
  let end = () => {};
  main.append(h("h1", {}, "Request"), form, result.element, state, timeline);

  function search(event) {
    event.preventDefault();
    const wanted = `#/requests/${encodeURIComponent(input.value.trim())}`;
    if (location.hash === wanted) begin();
    else location.hash = wanted;
  }

  function begin() {
    let finalSince = null;
    end();
    end = repeat(AGAIN_MS, async () => {
      const found = await read();
      if (found === null) return;
      finalSince = FINAL.includes(found.state) ? finalSince ?? Date.now() : null;
      if (finalSince !== null && Date.now() - finalSince > AFTER_FINAL_MS) end();
    });
  }

  /** Show the request and its history; return it, or null if it was not read. */
  async function read() {
    const found = await result.run(() => call("GET", `/issuances/${encodeURIComponent(id)}`));
    if (found === null) return null;
    setChildren(state, stateFacts(found.body));
    const history = await result.run(() => call("GET", `/issuances/${encodeURIComponent(id)}/history`));
    if (history === null) return null;
    setChildren(timeline, ...history.body.events.map(eventItem));
    result.say("");
    return found.body;
  }

  if (id !== null) begin();
  return { close: () => end() };
}

function stateFacts(request) {
  return facts([
    ["State", label(request.state)], ["Reason", request.code ?? "–"],
    ["Coupon", h("a", { href: `#/coupons/${request.coupon_id}` }, request.coupon_id)], ["User", String(request.user_id)],
    ["Place", `partition ${request.partition}, offset ${request.offset ?? "not known"}`],
    ["Ahead", number(request.position)], ["Sequence", number(request.sequence)], ["Attempts", number(request.attempts)],
    ["Requested", time(request.requested_at)], ["Decided", time(request.decided_at)],
  ]);
}

function eventItem(event) {
  const rest = Object.entries(event).filter(([name, value]) => !IN_HEADING.has(name) && value !== null);
  return h("li", { "data-kind": event.kind },
    h("p", {}, h("strong", {}, KINDS[event.kind] ?? event.kind.replaceAll("_", " ")), " ", time(event.at)),
    rest.length ? facts(rest.map(([name, value]) => [name.replaceAll("_", " "), shown(name, value)])) : null);
}

/** Return the value of an event's field. */
function shown(name, value) {
  if (name === "state") return label(value);
  if (name === "dead_letter_id") return h("a", { href: `#/dead-letters/${value}` }, value);
  return name === "error" ? h("code", {}, value) : String(value);
}
