// Loads a list page by page.

import { h, setText } from "./dom.js";

/**
 * Return what loads a list: `element` has a button for the next page, and what went wrong.
 * `read(cursor)` calls the API, `field` is that of its items, `show(items)` shows all that were loaded.
 */
export function loadPages(read, field, show) {
  const message = h("p", { class: "note", role: "status" });
  const more = h("button", { type: "button", hidden: true, click: () => next() }, "More");
  let items = [];
  let cursor = null;

  async function next() {
    more.disabled = true;
    try {
      const { body } = await read(cursor);
      items = [...items, ...body[field]];
      cursor = body.next;
      show(items);
      more.hidden = cursor === null;
      setText(message, cursor === null ? "" : "There are more.");
    } catch (problem) {
      setText(message, problem.message);
    } finally {
      more.disabled = false;
    }
  }

  return {
    element: h("div", {}, message, more),
    items: () => items,
    begin() {
      items = [];
      cursor = null;
      return next();
    },
  };
}
