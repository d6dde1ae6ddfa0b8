// Small pieces that several pages are made of.

import { h } from "./dom.js";
import { clause, count, plural, shortId } from "./format.js";

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

/** `of` is added for those who only hear the page, where several buttons are called the same. */
export const button = (label, onclick, kind = "", of = "") =>
  h("button", { type: "button", class: kind, onclick, "aria-label": of ? `${label} ${of}` : undefined }, label);

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

const sum = (tasks, states) => states.reduce((all, state) => all + (tasks?.[state] || 0), 0);

export const openTasks = (search) => sum(search.tasks, ["LEASED", "QUEUED", "SCHEDULED"]);

export const allTasks = (search) => sum(search.tasks, STATES);

/** The one word for how a search stands: what was done to it, or that all its tasks have ended. */
export const standing = (search) =>
  (search.status === "active" && !openTasks(search) && allTasks(search) > 0 ? "ended" : search.status);

/** Why tasks of a search wait: what will not change by itself, or else the longest wait. */
export function waits(queues, search) {
  const mine = (queues?.queues || []).filter((queue) => queue.search === search.name);
  const stuck = mine.filter((queue) => queue.why.stuck);
  return stuck.length ? stuck : mine.slice(0, 1);
}

export const waitLine = (queue) =>
  h("p", { key: queue.requirement_class, class: queue.why.stuck ? "why stuck" : "why" },
    h("strong", null, `${clause(queue.tasks, "task", "waits", "wait")}: `), queue.why.text, ".");

// Texts of others can be long: of each its beginning, until it is asked for.
const CHARS_MAX = 280;
const LINES_MAX = 4;
const whole = new Set();

/** The beginning of a text, and a button that shows the rest; `key` tells it from all others. */
export function beginning(text, key, ctx) {
  const first = text.split("\n").slice(0, LINES_MAX).join("\n").slice(0, CHARS_MAX);
  if (first.length === text.length) return h("span", { class: "message" }, text);
  const open = whole.has(key);
  const toggle = (event) => {
    // In the summary of details: those stay as they are.
    event.preventDefault();
    if (!whole.delete(key)) whole.add(key);
    ctx.redraw();
  };
  return [h("span", { class: "message" }, open ? text : `${first}…`), " ",
    h("button", { type: "button", class: "plain more", "aria-expanded": String(open), onclick: toggle },
      open ? "Show less" : `Show all ${count(text.length)} characters`)];
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
