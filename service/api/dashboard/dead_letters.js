// Dead letters: filtered, and replayed together after a dry run has shown what would become of them.

import { call, query } from "./api.js";
import { confirm, outcome } from "./dialog.js";
import { h, label, number, showRows, table, time } from "./dom.js";
import { loadPages } from "./pages.js";

const CODES = ["exhausted", "poison"];
const STATES = ["new", "replayed", "discarded"];
/** How many dead letters one replay takes. */
const MAX_REPLAY = 1_000;

export function openDeadLetters(main, { may }) {
  const coupon = h("input", { id: "coupon", type: "text", inputmode: "numeric", pattern: "[1-9][0-9]*", maxlength: "15" });
  const code = choice("code", CODES, "");
  const state = choice("state", STATES, "new");
  const list = table("Dead letters", [
    ["Dead letter", false], ["State", false], ["Code", false], ["Coupon", true], ["User", true], ["Last error", false], ["Dead since", false],
  ]);
  const results = table("Result for each", [["Dead letter", false], ["Becomes", false], ["Reason", false]]);
  const said = outcome();
  let previewed = [];
  const pages = loadPages(
    (cursor) => call("GET", `/dead-letters${query({ ...filter(), state: state.value, limit: 100, cursor })}`), "dead_letters",
    (found) => showRows(list, found, ({ id }) => id, cells),
  );
  const form = h("form", { class: "filter", input: forgetDryRun, submit: (event) => (event.preventDefault(), begin()) },
    h("p", {}, h("label", { for: "coupon" }, "Coupon"), coupon), h("p", {}, h("label", { for: "code" }, "Code"), code),
    h("p", {}, h("label", { for: "state" }, "State"), state), h("button", { type: "submit" }, "Show"));
  const dryRun = h("button", { type: "button", id: "dry-run", click: () => replay(true) }, "Dry run of the new ones");
  const replayAll = h("button", { type: "button", id: "replay-all", class: "primary", disabled: true, click: () => replay(false) }, "Replay them");
  const actions = h("p", { class: "actions", hidden: !may("operate") }, dryRun, replayAll);
  results.element.hidden = true;
  main.append(h("h1", {}, "Dead letters"), form, actions, said.element, results.element, list.element, pages.element);

  function filter() {
    return { coupon_id: coupon.value, code: code.value };
  }

  /** What was shown is not what another filter would replay. */
  function forgetDryRun() {
    previewed = [];
    replayAll.disabled = results.element.hidden = true;
    said.say("");
  }

  function begin() {
    forgetDryRun();
    return pages.begin();
  }

  /** Show what would become of the new dead letters of the filter, or replay those that were shown and no others. */
  async function replay(isDry) {
    if (!form.reportValidity()) return;
    const body = { limit: MAX_REPLAY, dry_run: isDry };
    if (!isDry) body.ids = previewed;
    if (coupon.value) body.coupon_id = Number(coupon.value);
    if (code.value) body.code = code.value;
    if (!isDry && !(await confirm("Replay these dead letters?", h("p", {}, said.element.textContent), "Replay"))) return;
    dryRun.disabled = replayAll.disabled = true;
    const answer = await said.run(() => call("POST", "/dead-letters/replay", { body }));
    dryRun.disabled = false;
    if (answer === null) return;
    const { replayed } = answer.body;
    previewed = isDry ? replayed.map(({ id }) => id) : [];
    showRows(results, replayed, ({ id }) => id, (one) => [
      h("a", { href: `#/dead-letters/${one.id}` }, String(one.id)), one.state ? label(one.state) : "–", one.why ?? one.code ?? "",
    ]);
    results.element.hidden = replayed.length === 0;
    const words = inWords(replayed);
    said.say(isDry ? `Dry run, nothing is changed: ${words}.` : `Replayed: ${words}.`);
    replayAll.disabled = !isDry || replayed.length === 0;
    if (!isDry) pages.begin();
  }

  pages.begin();
  return {};
}

function choice(id, values, chosen) {
  return h("select", { id }, h("option", { value: "" }, "any"),
    values.map((value) => h("option", { value, selected: value === chosen }, value)));
}

function cells(deadLetter) {
  return [
    h("a", { href: `#/dead-letters/${deadLetter.id}` }, String(deadLetter.id)), label(deadLetter.state), deadLetter.code,
    String(deadLetter.coupon_id ?? "–"), String(deadLetter.user_id ?? "–"), deadLetter.last_error, time(deadLetter.dead_at),
  ];
}

/** Return how many become what. */
export function inWords(replayed) {
  if (replayed.length === 0) return "no dead letter matches";
  const counts = new Map();
  for (const { state } of replayed) counts.set(state ?? "cannot be replayed", (counts.get(state ?? "cannot be replayed") ?? 0) + 1);
  return [...counts].map(([state, count]) => `${number(count)} ${state}`).join(", ");
}
