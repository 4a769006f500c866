// The login: exchanges an operator's API key for a session.

import { call } from "./api.js";
import { h, setText } from "./dom.js";

export function openLogin(main, _context, onLogin) {
  const key = h("input", {
    id: "key", type: "password", autocomplete: "current-password", required: true, spellcheck: "false",
  });
  const error = h("p", { class: "error", role: "alert" });
  const button = h("button", { type: "submit", class: "primary" }, "Log in");
  const form = h("form", { class: "login card", submit: logIn },
    h("h1", {}, "Log in"),
    h("label", { for: "key" }, "API key of an operator"),
    key,
    h("p", { class: "note" }, "A key with the role read, operate or admin. `coupons keys new` makes one."),
    button,
    error);
  main.append(form);

  async function logIn(event) {
    event.preventDefault();
    button.disabled = true;
    setText(error, "");
    try {
      await call("POST", "/dashboard/session", { body: { key: key.value.trim() } });
      onLogin();
    } catch (problem) {
      setText(error, problem.message);
      key.select();
    } finally {
      button.disabled = false;
    }
  }

  return {};
}
