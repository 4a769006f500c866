// Makes elements and puts values into words. Text is always set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** Return a new element. Attributes that are null or false are left out; functions listen to events. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return a new element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set the text of an element only if it is another one: a screen reader does not read it again. */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/**
 * Show the items as children of `parent`, each in the element that it had before, so that the focus stays.
 * `key` names an item, `make` returns its element, `update` sets what changes.
 */
export function keepChildren(parent, items, key, make, update) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const name = String(key(item));
    const child = before.get(name) ?? make(item);
    before.delete(name);
    child.dataset.key = name;
    update(child, item);
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
  for (const child of before.values()) child.remove();
}

/** Return a table with a caption; `columns` are [heading, is a number], `none` and `unknown` stand in place of rows. */
export function table(caption, columns, { none = "There are none.", unknown = "Not known." } = {}) {
  const heads = columns.map(([name, isNumber]) => h("th", { scope: "col", class: isNumber ? "number" : null }, name));
  const body = h("tbody");
  const made = h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, heads)), body);
  const empty = h("p", { class: "note empty" }, none);
  const scroll = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, made, empty);
  return { element: scroll, body, columns, empty, none, unknown };
}

/** Return a row of a table: its first cell names the row. */
export function row(columns) {
  return h("tr", {}, columns.map(([, isNumber], index) =>
    index === 0 ? h("th", { scope: "row" }) : h("td", { class: isNumber ? "number" : null })));
}

/** Show items as rows, null: they are not known. `cells` returns the texts or elements of one, which is kept by `key`. */
export function showRows({ body, columns, empty, none, unknown }, items, key, cells) {
  empty.hidden = items?.length > 0;
  setText(empty, items === null ? unknown : none);
  keepChildren(body, items ?? [], key, () => row(columns), (line, item) => {
    cells(item).forEach((content, index) => {
      const cell = line.children[index];
      if (!(content instanceof Node)) setText(cell, content);
      else if (cell.firstElementChild?.outerHTML !== content.outerHTML) cell.replaceChildren(content);
    });
  });
}

/** Set the children of an element only if they differ: what is selected or has the focus stays. */
export function setChildren(parent, ...children) {
  if (parent.innerHTML !== children.map((child) => child.outerHTML).join("")) parent.replaceChildren(...children);
}

/** Return a list of names and values; values are texts or elements. */
export function facts(entries) {
  return h("dl", { class: "facts" }, entries.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

const UNKNOWN = "–";

/** Return a number with separators. */
export function number(value, digits = 0) {
  if (value === null || value === undefined) return UNKNOWN;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** Return a duration in words. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

const SHORT = new Intl.DateTimeFormat("en-GB", {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

/** Return a time as an element, in the zone of the browser; its title is UTC. */
export function time(text) {
  return text === null ? UNKNOWN : h("time", { datetime: text, title: text }, SHORT.format(new Date(text)));
}

/** Return the time of the day of a date or a time. */
export function timeOfDay(at) {
  return new Date(at).toLocaleTimeString("en-GB");
}

/** Return a state as a coloured label. */
export function label(state) {
  return h("span", { class: "label", "data-state": state }, state.replaceAll("_", " "));
}
