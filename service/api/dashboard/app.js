// The operators' page: logs in, follows the overview, and shows the page that the fragment of the address names.

import { address, call, whenSessionEnds } from "./api.js";
import { openCoupon } from "./coupon.js";
import { openCoupons } from "./coupons.js";
import { openDeadLetter } from "./dead_letter.js";
import { openDeadLetters } from "./dead_letters.js";
import { setText } from "./dom.js";
import { Live } from "./live.js";
import { openLogin } from "./login.js";
import { openOverview } from "./overview.js";
import { openRequest } from "./request.js";

const element = (id) => document.getElementById(id);
const main = element("main");
const CONNECTIONS = {
  connecting: "Connecting",
  live: "Live",
  silent: "No data: trying again",
  paused: "Paused while the page is hidden",
  out: "Logged out",
};
/** Fragment of the address -> page, its name, and what opens it. */
const PAGES = [
  [/^#?\/?$/, "overview", "Overview", openOverview],
  [/^#\/coupons$/, "coupons", "All coupons", openCoupons],
  [/^#\/coupons\/([1-9]\d*)$/, "coupons", "Coupon", openCoupon],
  [/^#\/dead-letters$/, "dead-letters", "Dead letters", openDeadLetters],
  [/^#\/dead-letters\/([1-9]\d*)$/, "dead-letters", "Dead letter", openDeadLetter],
  [/^#\/requests(?:\/([\w-]+))?$/, "requests", "Request", openRequest],
];

const shown = { session: null, live: null, connection: null, overview: null, page: null };

/** Return whether the caller may do something. */
const may = (permission) => shown.session.permissions.includes(permission);

function showConnection(state) {
  shown.connection = state;
  element("connection").dataset.connection = state;
  setText(element("connection"), CONNECTIONS[state]);
  expireUnlessLive();
}

/** Grey the page, and let it say since when nothing is known, unless overviews arrive. */
function expireUnlessLive() {
  const isOld = shown.overview !== null && shown.connection !== "live";
  main.classList.toggle("old", isOld);
  if (isOld) shown.page?.expire?.(shown.overview.at);
}

function show(open, title, ...parameters) {
  shown.page?.close?.();
  main.replaceChildren();
  document.title = `${title} · Coupons`;
  shown.page = open(main, { may, overview: () => shown.overview }, ...parameters);
  if (shown.overview !== null) shown.page.update?.(shown.overview);
  expireUnlessLive();
}

function showPage() {
  if (shown.session === null) return;
  const found = PAGES.map((page) => [page, page[0].exec(location.hash)]).find(([, match]) => match !== null);
  const [[, name, title, open], match] = found ?? [PAGES[0], []];
  for (const link of element("navigation").querySelectorAll("a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  show(open, title, match[1] ?? null);
}

/** Find out who is logged in, and show the page; without a session the login. */
async function begin() {
  let session;
  try {
    session = (await call("GET", "/dashboard/session")).body;
  } catch (problem) {
    if (problem.status === 401 || problem.status === 403) end();
    else setTimeout(begin, 3_000);
    return;
  }
  shown.session = session;
  setText(element("caller-name"), session.name);
  element("log-out").hidden = !session.authentication;
  element("caller").hidden = element("navigation").hidden = false;
  shown.live = new Live(address("/dashboard/events"), {
    onConnection: showConnection,
    onOverview(overview) {
      shown.overview = overview;
      shown.page?.update?.(overview);
    },
    onLogOut: end,
    isAllowed,
  });
  showPage();
}

async function isAllowed() {
  try {
    await call("GET", "/dashboard/session");
    return true;
  } catch (problem) {
    if (problem.status !== 401 && problem.status !== 403) return true;
    end();
    return false;
  }
}

/** Show the login in place of the page. */
function end() {
  shown.live?.close();
  Object.assign(shown, { session: null, live: null, overview: null });
  element("caller").hidden = element("navigation").hidden = true;
  showConnection("out");
  show(openLogin, "Log in", begin);
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment of the address names the page
  main.focus();
});
element("log-out").addEventListener("click", async () => {
  await call("POST", "/dashboard/session/end").catch(() => {});
  shown.live?.announceLogOut();
  end();
});
addEventListener("hashchange", () => {
  showPage();
  main.focus();
});
whenSessionEnds(() => shown.session !== null && end());
showConnection("connecting");
begin();
