// Dead letters: tasks that will not be tried again by themselves, with what is known of why.

import { query } from "../api.js";
import { requeueDead } from "../actions.js";
import { h } from "../dom.js";
import { ago, clock, count, plural } from "../format.js";
import { beginning, button, code, href, leftOut, nothing, searchLink, taskLink, workerLink } from "../parts.js";
import { leaseCard } from "./evidence.js";

export const title = "Failures";

const OPEN_MAX = 5;
let opened = [];
let errorClass = "";

export function leave() {
  opened = [];
  errorClass = "";
}

export function paths({ name }) {
  const found = { dead: query("/api/dead", { name }) };
  for (const id of opened) found[`task ${id}`] = query("/api/task", { id });
  return found;
}

export function view(data, ctx) {
  if (!data.dead) return h("p", { class: "quiet" }, "Asking the master…");
  const { tasks, total, by_search: bySearch } = data.dead;
  const { name } = ctx.params;
  const classOf = (task) => task.failure?.error_class || "unknown";
  const classes = new Map();
  for (const task of tasks) classes.set(classOf(task), (classes.get(classOf(task)) || 0) + 1);
  const shown = tasks.filter((task) => !errorClass || classOf(task) === errorClass);
  const choose = (one) => () => {
    errorClass = one;
    ctx.redraw();
  };
  return [
    h("h1", null, "Failures"),
    h("p", { class: "quiet" }, total ? `${plural(total, "dead letter")}: tasks whose budgets are spent, or whose error can't be helped by trying again.`
      : "", name && [" Only of ", h("strong", null, name), ". ", h("a", { href: href("failures") }, "All of them")]),
    !total ? nothing("No dead letters", "A task that fails for good is parked here with every lease's evidence, until you requeue it.") : [
      h("section", { class: "panel" }, h("h2", null, "By search"), h("ul", { class: "lines" }, Object.entries(bySearch).slice(0, 20).map(([search, number]) =>
        h("li", { key: search }, searchLink(search), h("span", null, plural(number, "dead letter")),
          button(`Requeue ${count(number)}`, () => requeueDead(search, number, ctx.refresh), "", `of ${search}`))))),
      classes.size > 1 && h("div", { class: "filters", role: "group", "aria-label": "Error class" },
        h("button", { key: "", type: "button", "aria-pressed": String(!errorClass), onclick: choose("") }, "all"),
        [...classes].sort((a, b) => b[1] - a[1]).map(([one, number]) =>
          h("button", { key: one, type: "button", "aria-pressed": String(errorClass === one), onclick: choose(one) }, `${one} `, h("b", null, count(number))))),
      shown.map((task) => letter(task, data[`task ${task.task_id}`]?.task, ctx)),
      leftOut(total - tasks.length, "dead letter"),
      total > tasks.length && h("p", { class: "quiet" }, code("tenure dead list"), " shows all of them."),
    ],
  ];
}

function letter(task, full, ctx) {
  const toggle = (event) => {
    const id = task.task_id;
    opened = opened.filter((one) => one !== id);
    if (event.target.open) opened = [...opened, id].slice(-OPEN_MAX);
    if (event.target.open) ctx.refresh();
  };
  const failure = task.failure || {};
  return h("details", { key: task.task_id, class: "letter", ontoggle: toggle },
    h("summary", null,
      h("strong", { class: "error" }, failure.error_class || "unknown"), " ", beginning(failure.message || "", task.task_id, ctx),
      h("small", null, taskLink(task.task_id), " of ", searchLink(task.search), ", last on ", workerLink(task.worker_id) || "no worker", ", ",
        h("span", { title: clock(task.ended_unix_ms) }, ago(task.ended_unix_ms, ctx.now)), `; ${whyDead(task)}`)),
    full ? (full.attempt_records || []).toReversed().map((record) => leaseCard(record, ctx)) : h("p", { class: "quiet" }, "Fetching the evidence…"));
}

/** Which budget ran out, or that no retry could help. */
export function whyDead(task) {
  if (task.failure && !task.failure.retryable) return "the error is not retryable";
  const spent = [[task.losses, task.max_losses, "losses"], [task.attempts, task.max_attempts, "attempts"],
    [task.out_of_memory, task.max_out_of_memory, "out-of-memory ends"]].find(([used, most]) => most && (used || 0) >= most);
  return spent ? `${spent[0]} of ${spent[1]} ${spent[2]} spent` : "the search's retry policy forbids another try";
}
