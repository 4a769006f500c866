// The overview: what is wrong and why, whether the line moves, and what waits.

import { duration, h, keepChildren, label, number, setText, showRows, table } from "./dom.js";

/** Seconds after which a sweep is late: it is due every second. */
const SWEEP_LATE_SECONDS = 7;
const WORK = {
  retry: "Retries of failed requests",
  dead_letter: "Dead letters to forward",
  notify: "Notices to deliver",
  gate: "Changes for the gate",
};

export function openOverview(main) {
  const alerts = alertList();
  const tiles = tileList();
  const coupons = table("Newest coupons", [
    ["Coupon", false], ["State", false], ["Remaining", true], ["Held", true], ["Standby", true], ["Issued", true],
    ["Quantity", true],
  ]);
  const partitions = table("Lag by partition", [["Partition", false], ["Requests", true], ["Oldest", true]]);
  const work = table("Work that waits for Celery", [["Work", false], ["Rows", true], ["Oldest", true]]);
  const queues = table("Celery's queues", [["Queue", false], ["Messages", true]],
    "Not known: the broker does not answer, or is Kafka.");
  const connections = table("Processes with connections to PostgreSQL", [["Process", false], ["Connections", true]],
    "Not known: PostgreSQL does not answer.");
  main.append(
    h("h1", {}, "Overview"), alerts.element, tiles.element, coupons.element,
    h("div", { class: "columns" }, partitions.element, work.element, queues.element, connections.element),
  );

  return {
    update(overview) {
      alerts.update(overview);
      tiles.update(overview);
      showRows(coupons, overview.coupons ?? [], (coupon) => coupon.id, couponCells);
      showRows(partitions, overview.partitions, (one) => one.partition, (one) => [
        one.partition, number(one.lag), one.lag === 0 ? "–" : duration(one.lag_seconds),
      ]);
      showRows(work, overview.work, (one) => one.kind, (one) => [
        WORK[one.kind] ?? one.kind, number(one.rows), one.rows ? duration(one.oldest_seconds) : "–",
      ]);
      showRows(queues, Object.entries(overview.queues ?? {}), ([name]) => name, ([name, messages]) => [
        name, number(messages),
      ]);
      showRows(connections, Object.entries(overview.connections), ([name]) => name, ([name, count]) => [
        name, number(count),
      ]);
    },
  };
}

function couponCells(coupon) {
  return [
    h("a", { href: `#/coupons/${coupon.id}` }, `${coupon.id} · ${coupon.name}`), label(coupon.state),
    number(coupon.remaining), number(coupon.held), number(coupon.standby), number(coupon.issued),
    number(coupon.quantity),
  ];
}

function alertList() {
  const heading = h("h2", { id: "alerts-heading", "aria-live": "polite" });
  const list = h("ul", { class: "alerts" });
  const element = h("section", { "aria-labelledby": "alerts-heading", class: "card status" }, heading, list);
  return {
    element,
    update({ alerts }) {
      element.dataset.light = alerts.some(({ severity }) => severity === "page") ? "red" : alerts.length ? "amber" : "green";
      setText(heading, alerts.length === 0 ? "All is well" : alerts.length === 1 ? "1 alert" : `${alerts.length} alerts`);
      keepChildren(list, alerts, (alert) => `${alert.name} ${alert.summary}`,
        () => h("li", {}, h("strong", {}), " ", h("small", {}), h("p", {}), h("p", { class: "note" })),
        (line, alert) => {
          line.dataset.severity = alert.severity;
          const [name, since, cause, action] = line.children;
          setText(name, alert.summary || alert.name);
          setText(since, `${alert.name} since ${new Date(alert.since).toLocaleTimeString("en-GB")}`);
          setText(cause, alert.cause);
          setText(action, [alert.action, alert.runbook].filter(Boolean).join(" See "));
        });
    },
  };
}

/** [id, name, value in words, what is below it, how it is coloured] of each tile. */
function tilesOf(overview) {
  const { accepts, issues, waits_ms: waits, partitions, retrying, dead, work, proof } = overview;
  const sweep = overview.sweep_age_seconds === null ? null : Math.max(0, overview.sweep_age_seconds);
  const lag = partitions.reduce((sum, one) => (sum === null || one.lag === null ? null : sum + one.lag), 0);
  const oldest = Math.max(0, ...partitions.map((one) => one.lag_seconds ?? 0));
  const outbox = work.filter(({ kind }) => kind === "notify" || kind === "gate");
  const held = Object.values(retrying).reduce((sum, count) => sum + count, 0);
  const deadCount = dead && Object.values(dead).reduce((sum, count) => sum + count, 0);
  return [
    ["accepts", "Accepted a second", number(accepts.now), `peak ${number(accepts.peak)}`],
    ["issues", "Issued a second", number(issues.now), `peak ${number(issues.peak)}`],
    ["wait", "Median wait", waits ? duration(waits.p50 / 1000) : "–", waits ? `p99 ${duration(waits.p99 / 1000)}` : "no decision in the last minute"],
    ["undecided", "Undecided", number(lag), lag ? `oldest ${duration(oldest)}` : "nothing waits"],
    ["issued", "Issued in all", number(overview.issued), `${number(overview.standby)} on standby`],
    ["retrying", "Retrying", number(held), held ? Object.entries(retrying).map(([made, count]) => `${number(count)} after ${made}`).join(", ") : "none failed", held ? "amber" : null],
    ["dead", "Dead letters", number(deadCount), `${number(overview.dead_last_minute)} in the last minute`, deadCount ? "red" : null],
    ["outbox", "Outbox", number(outbox.reduce((sum, { rows }) => sum + rows, 0)), `oldest ${duration(Math.max(0, ...outbox.map((one) => one.oldest_seconds)))}`],
    ["sweep", "Last sweep of a worker", duration(sweep), sweep === null ? "not in the last minute, or not known" : "ago, due every second", sweep === null || sweep > SWEEP_LATE_SECONDS ? "red" : null],
    ["proof", "Last proof", proof === null ? "never" : proof.ok ? "promises hold" : "broken", proof === null ? "run `coupons verify`" : `${duration(proof.age_seconds)} ago`, proof === null ? null : proof.ok ? "green" : "red"],
  ];
}

function tileList() {
  const element = h("ul", { class: "tiles wide", "aria-label": "Figures" });
  return {
    element,
    update(overview) {
      keepChildren(element, tilesOf(overview), ([id]) => id,
        ([id, name]) => h("li", { class: "card", id: `tile-${id}` }, h("span", { class: "name" }, name), h("strong", {}), h("small", {})),
        (tile, [, , value, below, light]) => {
          setText(tile.children[1], value);
          setText(tile.children[2], below);
          if (light) tile.dataset.light = light;
          else delete tile.dataset.light;
        });
      element.title = `Peaks since ${new Date(overview.watched_since).toLocaleTimeString("en-GB")}`;
    },
  };
}
