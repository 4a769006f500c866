// Asks before something is done, and says how it went.

import { h, setText } from "./dom.js";

/** Return whether the operator confirms; `content` says what follows from it. */
export function confirm(title, content, action) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "dialog-title", close: end },
      h("h2", { id: "dialog-title" }, title), content,
      h("form", { method: "dialog", class: "actions" },
        h("button", { value: "" }, "Cancel"), h("button", { value: "yes", class: "primary" }, action)));

    function end() {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    }

    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Return a line that says what was done, and `run(work)`, which shows there what went wrong. */
export function outcome() {
  const element = h("p", { class: "outcome", role: "status" });
  return {
    element,
    say: (text) => {
      delete element.dataset.failed;
      setText(element, text);
    },
    async run(work) {
      try {
        return await work();
      } catch (problem) {
        element.dataset.failed = "";
        setText(element, problem.message);
        return null;
      }
    },
  };
}
