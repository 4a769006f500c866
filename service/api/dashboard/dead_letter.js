// One dead letter: its record, its errors, and what operators have done with it.

import { call } from "./api.js";
import { confirm, outcome } from "./dialog.js";
import { facts, h, label, showRows, table, time } from "./dom.js";

export function openDeadLetter(main, { may }, id) {
  const said = outcome();
  const content = h("div");
  const dryRun = h("button", { type: "button", id: "dry-run", click: dryRunIt }, "Dry run");
  const replay = h("button", { type: "button", id: "replay", class: "primary", click: replayIt }, "Replay");
  const discard = h("button", { type: "button", id: "discard", click: discardIt }, "Discard");
  const buttons = h("p", { class: "actions", hidden: true }, dryRun, replay, discard);
  const actions = table("Who did what", [["Action", false], ["By", false], ["The request became", false], ["At", false]],
    { none: "No operator has replayed or discarded it." });
  main.append(h("h1", {}, `Dead letter ${id}`), said.element, buttons, content, actions.element);

  async function read() {
    const found = await said.run(() => call("GET", `/dead-letters/${id}`));
    if (found !== null) show(found.body);
  }

  function show(deadLetter) {
    content.replaceChildren(deadLetterFacts(deadLetter), h("h2", {}, "Errors"), errors(deadLetter), h("h2", {}, "Record"), record(deadLetter.record));
    showRows(actions, deadLetter.actions.map((one, index) => ({ ...one, index })), ({ index }) => index, (one) => [
      label(one.action), one.acted_by, one.state ? became(one) : "–", time(one.acted_at),
    ]);
    buttons.hidden = !may("operate") || deadLetter.state !== "new";
  }

  async function dryRunIt() {
    const answer = await said.run(() => call("POST", `/dead-letters/${id}/replay?dry_run=true`));
    if (answer !== null) said.say(`Dry run, nothing is changed: the request would be ${became(answer.body)}.`);
  }

  async function replayIt() {
    const meaning = "The request is decided again at its original offset, as if nothing had come after it. Whether it may still be issued is checked again.";
    if (!(await confirm(`Replay dead letter ${id}?`, h("p", {}, meaning), "Replay"))) return;
    const answer = await said.run(() => call("POST", `/dead-letters/${id}/replay`));
    if (answer === null) return;
    said.say(`Replayed: the request is ${became(answer.body)}.`);
    read();
  }

  async function discardIt() {
    if (!(await confirm(`Discard dead letter ${id}?`, h("p", {}, "The request stays dead. This cannot be undone."), "Discard"))) return;
    const answer = await said.run(() => call("POST", `/dead-letters/${id}/discard`));
    if (answer === null) return;
    said.say("Discarded.");
    show(answer.body);
  }

  read();
  return {};
}

function became({ state, code }) {
  return code ? `${state} (${code})` : state;
}

function deadLetterFacts(deadLetter) {
  const request = deadLetter.request_id;
  return facts([
    ["State", label(deadLetter.state)], ["Code", deadLetter.code],
    ["Request", request ? h("a", { href: `#/requests/${request}` }, request) : "–"],
    ["Coupon", deadLetter.coupon_id ? h("a", { href: `#/coupons/${deadLetter.coupon_id}` }, deadLetter.coupon_id) : "–"],
    ["User", String(deadLetter.user_id ?? "–")],
    ["Place that a replay keeps", deadLetter.offset === null ? "none" : `partition ${deadLetter.partition}, offset ${deadLetter.offset}`],
    ["Attempts", String(deadLetter.attempts)], ["Appended", time(deadLetter.appended_at)], ["Dead since", time(deadLetter.dead_at)],
    ["In ISSUE_COUPON.dlt", deadLetter.forwarded_at ? time(deadLetter.forwarded_at) : "not yet"],
  ]);
}

function errors(deadLetter) {
  const entries = [["First", deadLetter.first_error]];
  if (deadLetter.last_error !== deadLetter.first_error) entries.push(["Last", deadLetter.last_error]);
  return facts(entries.map(([name, text]) => [name, h("code", {}, text)]));
}

function record({ key, value, text, headers }) {
  const decoded = headers.map(([name, content]) => [name, h("code", {}, content === null ? "null" : readable(content))]);
  return facts([
    ["Key", h("code", {}, key === null ? "null" : readable(key))], ["Value", h("code", {}, text ?? value ?? "null")], ...decoded,
  ]);
}

/** Return base64 as text if it is printable, otherwise as it is. */
function readable(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return /^[\P{Cc}\n\t]*$/u.test(text) ? text : `base64 ${base64}`;
  } catch {
    return `base64 ${base64}`;
  }
}
