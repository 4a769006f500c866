// Loads a list page by page, and says of when it is: it is read again only if somebody asks for it.

import { h, setText, timeOfDay } from "./dom.js";

/**
 * Return what loads a list: `element` says of when it is and what went wrong, and has buttons for the next page and for
 * the list as it is now.
 * `read(cursor)` calls the API, `field` is that of its items, `show(items)` shows all that were loaded.
 */
export function loadPages(read, field, show) {
  const message = h("p", { class: "note", role: "status" });
  const more = h("button", { type: "button", hidden: true, click: () => next() }, "More");
  const refresh = h("button", { type: "button", click: () => begin() }, "Refresh");
  let items = [];
  let cursor = null;
  let at = null;

  /** Read the page at `from`, and show it after the items `before`. */
  async function load(before, from) {
    more.disabled = refresh.disabled = true;
    try {
      const { body } = await read(from);
      if (from === null) at = new Date();
      items = [...before, ...body[field]];
      cursor = body.next;
      show(items);
      more.hidden = cursor === null;
      setText(message, `As of ${timeOfDay(at)}.${cursor === null ? "" : " There are more."}`);
    } catch (problem) {
      setText(message, at === null ? problem.message : `${problem.message} The list is as of ${timeOfDay(at)}.`);
    } finally {
      more.disabled = refresh.disabled = false;
    }
  }

  const next = () => load(items, cursor);
  const begin = () => load([], null);

  return {
    element: h("div", {}, message, h("p", { class: "actions" }, more, refresh)),
    begin,
  };
}
