// Asking before something is done, and saying what was.

import { act } from "./api.js";
import { h, render } from "./dom.js";

const TOAST_MS = 8000;
const toasts = [];
let asked = null;

/**
 * Ask, then do.
 *
 * spec: `title` (a question), `what` (sentences: what will happen), `verb` (of the button), `danger`, `action` (for the API).
 */
export function confirm(spec, done) {
  const dialog = document.getElementById("dialog");
  asked = { spec, done, busy: false, error: "" };
  draw(dialog);
  dialog.showModal();
  // Nothing dangerous by a press of Enter.
  dialog.querySelector(spec.danger ? ".cancel" : ".go").focus();
}

/** Take a question back that has not been answered. */
export function dismiss() {
  asked = null;
  document.getElementById("dialog").close();
}

export function say(text, kind = "good") {
  const toast = { text, kind, key: `${Date.now()}-${Math.random()}` };
  toasts.push(toast);
  if (toasts.length > 4) toasts.shift();
  drawToasts();
  setTimeout(() => drop(toast), TOAST_MS);
}

function drop(toast) {
  const place = toasts.indexOf(toast);
  if (place >= 0) toasts.splice(place, 1);
  drawToasts();
}

function drawToasts() {
  render(
    document.getElementById("toasts"),
    toasts.map((toast) =>
      h("div", { key: toast.key, class: `toast ${toast.kind}` },
        h("span", null, toast.text),
        h("button", { class: "plain", "aria-label": "Dismiss", onclick: () => drop(toast) }, "✕")),
    ),
  );
}

function draw(dialog) {
  const { spec, busy, error } = asked;
  render(
    dialog,
    h("form", { method: "dialog", onsubmit: go },
      h("h2", { id: "dialog-title" }, spec.title),
      h("ul", null, spec.what.map((line) => h("li", null, line))),
      error && h("p", { class: "error", role: "alert" }, error),
      h("div", { class: "buttons" },
        h("button", { type: "button", class: "cancel", disabled: busy, onclick: () => dialog.close() }, "Leave it"),
        h("button", { type: "submit", class: spec.danger ? "go danger" : "go primary", disabled: busy },
          busy ? "At work…" : spec.verb))),
  );
}

async function go(event) {
  event.preventDefault();
  const dialog = document.getElementById("dialog");
  const mine = asked;
  mine.busy = true;
  mine.error = "";
  draw(dialog);
  try {
    say(await act(mine.spec.action));
    if (asked === mine) dialog.close();
    mine.done?.();
  } catch (error) {
    mine.error = error.message;
    // Nobody looks at the question any more.
    if (asked !== mine || !dialog.open) say(`${mine.spec.verb}: ${error.message}`, "bad");
  }
  mine.busy = false;
  if (asked === mine) draw(dialog);
}
