// Small pieces that several pages are made of.

import { h } from "./dom.js";
import { count, plural, shortId } from "./format.js";

export const STATES = ["SUCCEEDED", "LEASED", "QUEUED", "SCHEDULED", "FAILED", "CANCELLED"];
const STATE_WORDS = { SUCCEEDED: "succeeded", LEASED: "running", QUEUED: "waiting", SCHEDULED: "backing off", FAILED: "failed",
  CANCELLED: "cancelled" };

export const stateWord = (state) => STATE_WORDS[state] || state;

export const href = (page, params = {}) => {
  const search = new URLSearchParams(Object.entries(params).filter(([, value]) => value));
  return `#/${page}${search.size ? `?${search}` : ""}`;
};

export const pill = (word, kind = word) => h("span", { class: `pill ${String(kind).toLowerCase()}` }, word);

export const statePill = (state) => pill(stateWord(state), state);

export const taskLink = (taskId) =>
  taskId && h("a", { class: "id", href: href("task", { id: taskId }), title: taskId }, shortId(taskId));

export const searchLink = (name) => name && h("a", { href: href("search", { name }), class: "name" }, name);

export const workerLink = (id) => id && h("a", { href: href("workers", { id }), class: "name" }, id);

export const button = (label, onclick, kind = "") => h("button", { type: "button", class: kind, onclick }, label);

export const code = (text) => h("code", null, text);

/** How far something is, as a bar; `parts` are [kind, amount]. */
export function bar(parts, total, label) {
  return h("div", { class: "bar", role: "img", "aria-label": label, title: label },
    parts.filter(([, amount]) => amount > 0).map(([kind, amount]) =>
      h("span", { key: kind, class: kind.toLowerCase(), style: { width: `${(100 * amount) / Math.max(1, total)}%` } })));
}

export function taskBar(tasks) {
  const total = STATES.reduce((sum, state) => sum + (tasks[state] || 0), 0);
  const label = STATES.filter((state) => tasks[state]).map((state) => `${count(tasks[state])} ${stateWord(state)}`).join(", ");
  return bar(STATES.map((state) => [state, tasks[state] || 0]), total, label || "no tasks");
}

/** What the colours of taskBar mean, with their numbers. */
export function legend(tasks) {
  return h("ul", { class: "legend" }, STATES.filter((state) => tasks[state]).map((state) =>
    h("li", { key: state }, h("i", { class: state.toLowerCase() }), `${count(tasks[state])} ${stateWord(state)}`)));
}

export function table(columns, rows, empty) {
  if (!rows.length) return empty;
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "table" },
    h("table", null,
      h("thead", null, h("tr", null, columns.map((column) =>
        h("th", { scope: "col", class: column.startsWith(">") ? "number" : "" }, column.replace(">", ""))))),
      h("tbody", null, rows)));
}

export const leftOut = (number, what) =>
  number > 0 && h("p", { class: "quiet" }, `${plural(number, what)} more ${number === 1 ? "is" : "are"} not shown.`);

/** Where there is nothing: what that means, and what to do next. */
export function nothing(title, ...lines) {
  return h("div", { class: "nothing" }, h("h3", null, title), lines.map((line) => h("p", null, line)));
}

export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== undefined && value !== "" && value !== false)
    .map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value))));
}

export function progress(task) {
  const step = task.progress?.step || 0;
  const total = task.progress?.total_steps || 0;
  if (!task.progress) return h("span", { class: "quiet" }, "no report yet");
  if (!total) return `step ${count(step)}`;
  const label = `step ${count(step)} of ${count(total)}`;
  return h("span", { class: "step" }, bar([["leased", step]], total, label), h("small", null, `${count(step)} / ${count(total)}`));
}
