// The overview: what is wrong and why, whether the line moves, and what waits.

import { address } from "./api.js";
import { duration, h, keepChildren, label, number, setText, showRows, table, timeOfDay } from "./dom.js";

/** Seconds after which a sweep is late: it is due every second. */
const SWEEP_LATE_SECONDS = 7;
/** Seconds after which a heartbeat of a worker is late: it is sent every two seconds. */
const HEARTBEAT_LATE_SECONDS = 7;
/** Milliseconds after which alerts say nothing about now: they are observed every two seconds. */
const ALERTS_OLD_MS = 6_000;
const NOT_KNOWN = "not known";
const WORK = {
  retry: "Retries of failed requests",
  dead_letter: "Dead letters to forward",
  notify: "Notices to deliver",
  gate: "Changes for the gate",
};

export function openOverview(main) {
  const alerts = alertList();
  const tiles = tileList();
  const coupons = table("Coupons, on sale first", [
    ["Coupon", false], ["State", false], ["Remaining", true], ["Held", true], ["Standby", true], ["Issued", true],
    ["Quantity", true],
  ]);
  const partitions = table("Lag by partition", [["Partition", false], ["Requests", true], ["Oldest", true]]);
  const work = table("Work that waits for Celery", [["Work", false], ["Rows", true], ["Oldest", true]]);
  const queues = table("Celery's queues", [["Queue", false], ["Messages", true], ["Oldest", true]],
    { unknown: "Not known: the broker does not answer, or is Kafka." });
  const workers = table("Celery's workers", [["Worker", false], ["Last seen", true]],
    { unknown: "Not known: Redis does not answer." });
  const connections = table("Processes with connections to PostgreSQL", [["Process", false], ["Connections", true]],
    { unknown: "Not known: PostgreSQL does not answer." });
  main.append(
    h("h1", {}, "Overview"), alerts.element, tiles.element, coupons.element,
    h("div", { class: "columns" }, partitions.element, work.element, queues.element, workers.element, connections.element),
  );

  return {
    update(overview) {
      alerts.update(overview);
      tiles.update(overview);
      showRows(coupons, overview.coupons, (coupon) => coupon.id, couponCells);
      showRows(partitions, overview.partitions, (one) => one.partition, (one) => [
        one.partition, number(one.lag), one.lag === 0 ? "–" : duration(one.lag_seconds),
      ]);
      showRows(work, overview.work, (one) => one.kind, (one) => [
        WORK[one.kind] ?? one.kind, number(one.rows), one.rows ? duration(one.oldest_seconds) : "–",
      ]);
      showRows(queues, overview.queues, (one) => one.name, (one) => [
        one.name, number(one.messages), one.messages ? duration(one.oldest_seconds) : "–",
      ]);
      showRows(workers, overview.workers, (one) => one.name, (one) => [one.name, seenInWords(one.seen_seconds_ago)]);
      showRows(connections, overview.connections && Object.entries(overview.connections), ([name]) => name, ([name, count]) => [
        name, number(count),
      ]);
    },
    /** Say that what is shown is that of a time, and that nothing is known about now. */
    expire(at) {
      alerts.expire(at);
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
    expire(at) {
      element.dataset.light = "unknown";
      setText(heading, at === null ? "Not known" : `Not known since ${timeOfDay(at)}`);
    },
    update({ at, alerts, alerts_observed_at: observedAt = at }) {
      if (observedAt === null || Date.parse(at) - Date.parse(observedAt) > ALERTS_OLD_MS) {
        list.replaceChildren();
        this.expire(observedAt);
        return;
      }
      element.dataset.light = alerts.some(({ severity }) => severity === "page") ? "red" : alerts.length ? "amber" : "green";
      setText(heading, alerts.length === 0 ? "All is well" : alerts.length === 1 ? "1 alert" : `${alerts.length} alerts`);
      keepChildren(list, alerts, (alert) => `${alert.name} ${alert.summary}`,
        ({ name }) => h("li", {}, h("strong", {}), " ", h("small", {}), h("p", {}), h("p", { class: "note" }, h("span", {}), " ",
          h("a", { href: address(`/dashboard/runbooks/${name}`) }, `Runbook of ${name}`))),
        (line, alert) => {
          line.dataset.severity = alert.severity;
          const [name, since, cause, action] = line.children;
          setText(name, alert.summary || alert.name);
          setText(since, `${alert.name} since ${timeOfDay(alert.since)}`);
          setText(cause, alert.cause);
          setText(action.firstElementChild, alert.action);
        });
    },
  };
}

/** Return the sum of what `value` returns of each; null if one, or what they are, is not known. */
function sum(items, value) {
  return items && items.reduce((total, one) => (total === null || value(one) === null ? null : total + value(one)), 0);
}

/** [id, name, value in words, what is below it, how it is coloured] of each tile. */
function tilesOf(overview) {
  const { accepts, issues, waits_ms: waits, partitions, retrying, dead, proof } = overview;
  const lag = sum(partitions, (one) => one.lag);
  const oldest = partitions && Math.max(0, ...partitions.map((one) => one.lag_seconds ?? 0));
  const outbox = overview.work && overview.work.filter(({ kind }) => kind === "notify" || kind === "gate");
  const held = retrying && sum(Object.values(retrying), (count) => count);
  const deadCount = dead && sum(Object.values(dead), (count) => count);
  return [
    ["accepts", "Accepted a second", number(accepts.now), rateInWords(accepts)],
    ["issues", "Issued a second", number(issues.now), rateInWords(issues)],
    ["wait", "Median wait", waits?.decisions ? duration(waits.p50 / 1000) : "–", waits === null ? NOT_KNOWN : waits.decisions ? `p99 ${duration(waits.p99 / 1000)}` : "no decision in the last minute"],
    ["undecided", "Undecided", number(lag), lag === null ? NOT_KNOWN : lag ? `oldest ${duration(oldest)}` : "nothing waits"],
    ["issued", "Issued in all", number(overview.issued), overview.standby === null ? NOT_KNOWN : `${number(overview.standby)} on standby`],
    ["retrying", "Retrying", number(held), held === null ? NOT_KNOWN : held ? Object.entries(retrying).map(([made, count]) => `${number(count)} after ${made}`).join(", ") : "none failed", held ? "amber" : null],
    ["dead", "Dead letters", number(deadCount), dead === null ? NOT_KNOWN : `${number(overview.dead_last_minute)} in the last minute`, deadCount ? "red" : null],
    ["outbox", "Outbox", number(sum(outbox, ({ rows }) => rows)), outbox ? `oldest ${duration(Math.max(0, ...outbox.map((one) => one.oldest_seconds)))}` : NOT_KNOWN],
    ["sweep", "Last sweep of a worker", ...sweepInWords(overview)],
    ["proof", "Last proof", ...proofInWords(proof)],
  ];
}

function rateInWords({ now, peak }) {
  return now === null ? `${NOT_KNOWN}, peak ${number(peak)}` : `peak ${number(peak)}`;
}

function seenInWords(seconds) {
  return `${duration(seconds)} ago${seconds > HEARTBEAT_LATE_SECONDS ? ", late" : ""}`;
}

function sweepInWords({ parts, sweep_age_seconds: age }) {
  if (!parts.redis) return ["–", NOT_KNOWN, null];
  if (age === null) return ["–", "none in the last minute", "red"];
  return [duration(Math.max(0, age)), "ago, due every second", age > SWEEP_LATE_SECONDS ? "red" : null];
}

function proofInWords(proof) {
  if (proof === null) return ["–", NOT_KNOWN, null];
  if (proof.ok === null) return ["never", "run `coupons verify`", null];
  return [proof.ok ? "promises hold" : "broken", `${duration(proof.age_seconds)} ago`, proof.ok ? "green" : "red"];
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
      element.title = `Peaks since ${timeOfDay(overview.watched_since)}`;
    },
  };
}
