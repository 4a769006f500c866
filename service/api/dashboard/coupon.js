// One coupon: its counters, its curve, and what an operator may change of it.

import { call } from "./api.js";
import { drawCurve } from "./chart.js";
import { confirm, outcome } from "./dialog.js";
import { duration, facts, h, keepChildren, label, number, setChildren, setText, time } from "./dom.js";
import { repeat } from "./repeat.js";

/** Milliseconds between two reads of the coupon, and of its report. */
const COUPON_MS = 1_000;
const REPORT_MS = 5_000;

const CHANGES = {
  paused: ["Pause", "New requests are refused until it is opened again. What was accepted is issued.", "The coupon is paused."],
  open: ["Open", "Requests are accepted again, within its window.", "The coupon is open, within its window."],
  closed: ["Close", "New requests are refused. Accepted requests that are not decided yet are refused, too.", "The coupon is closed."],
};

export function openCoupon(main, { may }, id) {
  const heading = h("h1", {}, `Coupon ${id}`);
  const counters = h("ul", { class: "tiles", "aria-label": "Counters" });
  const settings = h("div");
  const buttons = h("p", { class: "actions", hidden: !may("operate") });
  const result = outcome();
  const reading = outcome();
  const curve = h("div", { class: "chart" });
  const details = h("div");
  let coupon = null;
  let tag = null;
  let reported = null;
  let mayHaveChanged = true;
  let refresh = () => {};
  main.append(heading, counters, settings, buttons, result.element, reading.element, h("h2", {}, "From the opening to the sell-out"), curve,
    h("p", { class: "legend" }, h("span", { class: "accepted" }, "accepted"), " ", h("span", { class: "issued" }, "issued"), " ",
      h("span", { class: "quantity" }, "quantity")), details);

  for (const state of Object.keys(CHANGES)) buttons.append(h("button", { type: "button", "data-change": state, click: () => changeState(state) }, CHANGES[state][0]));
  if (may("administer")) buttons.append(h("button", { type: "button", id: "change-quantity", click: changeQuantity }, "Change quantity"));

  async function read() {
    const found = await reading.run(() => call("GET", `/coupons/${id}`));
    if (found === null) return;
    reading.say("");
    show(found);
  }

  function show({ body, tag: newTag }) {
    [coupon, tag] = [body, newTag];
    refresh();
    setText(heading, `${coupon.id} · ${coupon.name}`);
    keepChildren(counters, [
      ["remaining", number(coupon.remaining)], ["issued", number(coupon.issued)], ["held", number(coupon.held)],
      ["standby", number(coupon.standby)], ["quantity", number(coupon.quantity)], ["waitlist", number(coupon.waitlist)],
    ], ([name]) => name,
    ([name]) => h("li", { class: "card", id: `counter-${name}` }, h("span", { class: "name" }, name), h("strong", {})),
    (tile, [, value]) => setText(tile.children[1], value));
    setChildren(settings, facts([
      ["State", label(coupon.state)], ["Opens", coupon.opens_at ? time(coupon.opens_at) : "at once"],
      ["Closes", coupon.closes_at ? time(coupon.closes_at) : "never"], ["Last changed", time(coupon.updated_at)],
    ]));
    for (const button of buttons.querySelectorAll("[data-change]")) button.disabled = isAlready(button.dataset.change);
  }

  const isAlready = (state) => (state === "open" ? !["paused", "closed"].includes(coupon.state) : coupon.state === state);

  async function readReport() {
    const wanted = coupon && `${coupon.issued} ${coupon.held} ${coupon.standby} ${coupon.quantity}`;
    if (reported === wanted && !mayHaveChanged) return;
    mayHaveChanged = false;
    try {
      const { body } = await call("GET", `/coupons/${id}/report`);
      reported = wanted;
      curve.replaceChildren(drawCurve(body) ?? h("p", { class: "note" }, "No request has been decided yet."));
      details.replaceChildren(reportFacts(body));
    } catch (problem) {
      mayHaveChanged = true;
      if (problem.code !== "too_busy") curve.replaceChildren(h("p", { class: "note" }, problem.message));
    }
  }

  /** Change the coupon if nobody else has since the operator was asked: `asked` is its entity tag then. */
  async function change(body, asked, done) {
    const changed = await result.run(() => call("PATCH", `/coupons/${id}`, { body, ifMatch: asked }));
    if (changed === null) return;
    show(changed);
    result.say(done);
  }

  async function changeState(state) {
    const [action, meaning, done] = CHANGES[state];
    const asked = tag;
    if (await confirm(`${action} ${coupon.name}?`, h("p", {}, meaning), action)) await change({ state }, asked, done);
  }

  async function changeQuantity() {
    const [before, asked] = [coupon, tag]; // the counters go on, and what follows from the number with them
    const input = h("input", { id: "quantity", type: "number", min: String(Math.max(1, before.issued + before.held)), max: "2147483647", value: String(before.quantity), input: update });
    const list = h("ul", { id: "consequences", "aria-live": "polite" });
    function update() {
      const lines = consequences(coupon, input.valueAsNumber);
      if (list.textContent !== lines.join("")) list.replaceChildren(...lines.map((line) => h("li", {}, line)));
    }
    update();
    refresh = update;
    const content = h("div", {}, h("label", { for: "quantity" }, "New quantity"), input, h("h3", {}, "What follows"), list);
    const isConfirmed = await confirm(`Quantity of ${before.name}`, content, "Change");
    refresh = () => {};
    const quantity = input.valueAsNumber;
    if (isConfirmed && Number.isInteger(quantity) && quantity !== before.quantity) await change({ quantity }, asked, `The quantity is ${number(quantity)}.`);
  }

  const ends = [repeat(COUPON_MS, read), repeat(REPORT_MS, readReport)];
  return {
    close: () => ends.forEach((end) => end()),
    /** What is accepted or decided without a change of the counters is refused: the report counts it, too. */
    update({ accepts, partitions }) {
      if (accepts.now !== 0 || partitions === null || partitions.some(({ lag }) => lag !== 0)) mayHaveChanged = true;
    },
  };
}

/** Return what follows from another quantity, in words. */
function consequences(coupon, quantity) {
  const live = coupon.issued + coupon.held;
  if (!Number.isInteger(quantity)) return ["Enter a whole number."];
  if (quantity === coupon.quantity) return ["Nothing changes."];
  if (quantity < live) return [`This is refused: ${number(coupon.issued)} are issued and ${number(coupon.held)} are held. ${number(live)} or more can be set.`];
  const free = quantity - live;
  const promoted = coupon.held === 0 || free > 0 ? Math.min(free, coupon.standby) : 0;
  const lines = [quantity > coupon.quantity ? `${number(quantity - coupon.quantity)} more can be issued.` : `${number(coupon.quantity - quantity)} fewer can be issued.`];
  if (promoted > 0) lines.push(`${number(promoted)} of ${number(coupon.standby)} requests on standby are issued first, in the order of the log.`);
  lines.push(`${number(free - promoted)} seats are free for requests that are not decided yet, and for new ones.`);
  if (coupon.state === "sold_out" && free > promoted) lines.push("It is not sold out any more: new requests are accepted at once.");
  if (["paused", "closed", "scheduled"].includes(coupon.state)) lines.push(`New requests are still refused: it is ${coupon.state}.`);
  if (free === promoted) lines.push("It is sold out then.");
  lines.push("The change applies to all undecided requests. It is recorded with your key, and from which offset it counts.");
  return lines;
}

function reportFacts(report) {
  const byCode = (counts) => Object.entries(counts).map(([code, count]) => `${number(count)} ${code.replaceAll("_", " ")}`).join(", ") || "none";
  const waits = report.waits_ms;
  return facts([
    ["Accepted", number(report.accepted)], ["Of other producers", number(report.foreign)], ["Refused after acceptance", byCode(report.refused)],
    ["Dead", byCode(report.dead)],
    ["Wait", waits ? `median ${duration(waits.p50 / 1000)}, p99 ${duration(waits.p99 / 1000)}, longest ${duration(waits.max / 1000)}` : "–"],
    ["Sold out", report.sell_out ? `after ${duration(report.sell_out.seconds)}` : "not yet"],
  ]);
}
