// All coupons: searched and filtered by the API, page by page.

import { call, query } from "./api.js";
import { h, label, number, showRows, table } from "./dom.js";
import { loadPages } from "./pages.js";

const STATES = ["scheduled", "open", "paused", "sold_out", "closed"];

export function openCoupons(main) {
  const name = h("input", { id: "name", type: "search", maxlength: "200" });
  const state = h("select", { id: "state" }, h("option", { value: "" }, "any"),
    STATES.map((one) => h("option", { value: one }, one.replaceAll("_", " "))));
  const list = table("Coupons", [
    ["Coupon", false], ["State", false], ["Remaining", true], ["Issued", true], ["Quantity", true],
  ]);
  const pages = loadPages(
    (cursor) => call("GET", `/coupons${query({ name: name.value, state: state.value, limit: 100, cursor })}`),
    "coupons",
    (coupons) => showRows(list, coupons, (coupon) => coupon.id, (coupon) => [
      h("a", { href: `#/coupons/${coupon.id}` }, `${coupon.id} · ${coupon.name}`), label(coupon.state),
      number(coupon.remaining), number(coupon.issued), number(coupon.quantity),
    ]),
  );
  const form = h("form", { class: "filter", submit: (event) => (event.preventDefault(), pages.begin()) },
    h("p", {}, h("label", { for: "name" }, "Part of the name"), name),
    h("p", {}, h("label", { for: "state" }, "State"), state),
    h("button", { type: "submit" }, "Show"));
  main.append(h("h1", {}, "All coupons"), form, list.element, pages.element);
  pages.begin();
  return {};
}
