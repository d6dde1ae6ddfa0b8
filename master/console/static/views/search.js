// One search: how far, how fast, how good, and what of it runs, waits and failed.

import { query } from "../api.js";
import { searchButtons } from "../actions.js";
import { progressChart, resultsChart } from "../chart.js";
import { h } from "../dom.js";
import { ago, clock, count, figure, rate, span } from "../format.js";
import { allTasks, beginning, button, facts, href, leftOut, legend, nothing, openTasks, pill, progress, standing, STATES, statePill, stateWord, table,
  taskBar, taskLink, waitLine, waits, workerLink,
} from "../parts.js";

export const title = "Search";

// Kept over redraws, not over pages.
let byTime = true;
let hover = null;

export function leave() {
  hover = null;
}

export function paths({ name, tab, state, cursor }) {
  const found = { search: query("/api/search", { name }), curve: query("/api/curve", { name }), queues: "/api/queues" };
  if (!["best", "results", "failed", "all"].includes(tab)) found.leases = "/api/leases";
  if (tab === "results") found.results = query("/api/results", { name });
  if (tab === "failed") found.dead = query("/api/dead", { name });
  if (tab === "all") found.tasks = query("/api/tasks", { name, state, cursor });
  return found;
}

export function view(data, ctx) {
  if (!data.search) return h("p", { class: "quiet" }, "Asking the master…");
  const { search, forecast, compute } = data.search;
  const tasks = search.tasks || {};
  const all = allTasks(search);
  const ended = all - openTasks(search);
  return [
    h("div", { class: "title" }, h("h1", null, search.name), pill(standing(search)), h("div", { class: "buttons" }, searchButtons(search, ctx.refresh))),
    h("section", { class: "panel" }, taskBar(tasks), legend(tasks), facts([
      ["Ended", `${count(ended)} of ${count(all)}`],
      ["Pace", forecast.per_hour ? `${rate(forecast.per_hour)}, over ${span(forecast.window_ms)}${ended === all ? " until its last end" : ""}` : "–"],
      ["Time left", forecast.eta_ms !== null ? `about ${span(forecast.eta_ms)}` : `not known: ${forecast.why}`],
      ["Best fitness", search.best_task_id ? [h("strong", null, figure(search.best_fitness)), " by ", taskLink(search.best_task_id)] : "–"],
      ["Last end", ago(search.last_ended_unix_ms, ctx.now)],
      ["Oldest waits for", search.oldest_queued_ms ? span(search.oldest_queued_ms) : "–"],
      ["Compute", spent(compute)],
      ["Begun", `${clock(search.created_unix_ms)}, ${ago(search.created_unix_ms, ctx.now)}`],
      ["Priority", search.priority ? String(search.priority) : ""],
      ["Weight", search.weight !== 1 ? figure(search.weight) : ""],
      ["Leased at most", search.max_leased ? count(search.max_leased) : ""],
      ["Evaluator", search.evaluator || ""],
    ])),
    waits(data.queues, search).map(waitLine),
    charts(data, ctx, search, all),
    tabs(data, ctx, search),
  ];
}

/** What the runs so far took, and how much of it nobody can use. */
function spent({ useful_ms: useful, saved_ms: saved, wasted_ms: wasted }) {
  const sum = (parts) => Object.values(parts).reduce((all, one) => all + one, 0);
  const lost = sum(wasted);
  // Shared results were not computed at all.
  const all = useful + lost + sum({ ...saved, shared: 0 });
  if (!all) return "–";
  const causes = Object.entries(wasted).sort((a, b) => b[1] - a[1]).map(([cause, ms]) => `${span(ms)} by ${cause.replaceAll("_", " ")}`);
  return h("span", { title: causes.join(", ") }, `${span(all)}, of it ${Math.round((1000 * lost) / all) / 10} % wasted`);
}

function charts(data, ctx, search, all) {
  const curve = data.curve;
  if (!curve) return null;
  if (!curve.count) return h("section", { class: "panel" }, nothing("No result yet", "The curve begins with the first task that succeeds."));
  const live = search.status === "active" && (search.tasks?.LEASED || 0) > 0;
  const options = { width: ctx.width - 34, now: ctx.now, live };
  const onHover = (at) => {
    hover = at;
    ctx.redraw();
  };
  const choose = (value) => () => {
    byTime = value;
    ctx.redraw();
  };
  const chart = resultsChart(curve, { ...options, byTime, hover, onHover });
  return [
    h("section", { class: "panel" },
      h("div", { class: "title" }, h("h2", null, "Fitness"), !curve.whole && h("span", { class: "quiet" }, `reading, ${count(curve.count)} so far…`),
        h("div", { class: "switch", role: "group", "aria-label": "Horizontal axis" },
          h("button", { type: "button", "aria-pressed": String(byTime), onclick: choose(true) }, "by time"),
          h("button", { type: "button", "aria-pressed": String(!byTime), onclick: choose(false) }, "by result"))),
      chart || nothing("Results without fitness", "Its evaluator returns no metric of that name.")),
    h("section", { class: "panel" }, h("h2", null, "Progress"), progressChart(curve, { ...options, total: all })),
  ];
}

function tabs(data, ctx, search) {
  const bodies = { running, best, results, failed, all };
  const tab = Object.hasOwn(bodies, ctx.params.tab || "") ? ctx.params.tab : "running";
  const name = search.name;
  const items = [["running", "Running", search.tasks?.LEASED], ["best", "Best", 0], ["results", "Latest results", 0],
    ["failed", "Failed", search.tasks?.FAILED], ["all", "All tasks", 0]];
  return h("section", { class: "panel" },
    h("nav", { class: "tabs", "aria-label": "Tasks of the search" }, items.map(([key, label, number]) =>
      h("a", { key, href: href("search", { name, tab: key }), "aria-current": key === tab ? "true" : undefined }, label,
        number > 0 && h("b", null, count(number))))),
    h("div", { key: tab }, bodies[tab](data, ctx, search)));
}

function running(data, ctx, search) {
  if (!data.leases) return null;
  const mine = data.leases.leases.filter((task) => task.search === search.name);
  const unseen = (search.tasks?.LEASED || 0) - mine.length;
  return [table(["Task", "Worker", ">For", "Progress", "Checkpoint"], mine.map((task) => h("tr", { key: task.task_id },
    h("td", null, taskLink(task.task_id)), h("td", null, workerLink(task.worker_id)),
    h("td", { class: "number" }, span(ctx.now - task.leased_unix_ms)), h("td", null, progress(task)),
    h("td", null, task.checkpoint ? `step ${count(task.checkpoint.step)}` : "–"))),
  nothing("Nothing of it runs", search.tasks?.QUEUED ? "Why is said above." : "No task of it waits.")), data.leases.left_out > 0 && leftOut(unseen, "task")];
}

function best(data) {
  const steps = (data.curve?.steps || []).slice().reverse().slice(0, 20);
  return table(["Task", ">Fitness", ">Result", "Ended"], steps.map(([at, number, fitness, taskId]) => h("tr", { key: taskId },
    h("td", null, taskLink(taskId)), h("td", { class: "number" }, figure(fitness)), h("td", { class: "number" }, count(number)),
    h("td", null, clock(at)))), nothing("No result yet", "Each result that beats all before it stands here."));
}

function results(data, ctx) {
  return data.results && table(["Task", ">Fitness", "Worker", ">Took", "Ended", ">Leases"], data.results.tasks.map((task) => h("tr", { key: task.task_id },
    h("td", null, taskLink(task.task_id)), h("td", { class: "number" }, figure(task.metrics?.fitness)),
    h("td", null, workerLink(task.worker_id)), h("td", { class: "number" }, task.duration_seconds ? span(task.duration_seconds * 1000) : "–"),
    h("td", null, ago(task.ended_unix_ms, ctx.now)), h("td", { class: "number" }, count(task.epoch)))),
  nothing("No result yet", "What succeeds appears here, the newest first."));
}

function failed(data, ctx, search) {
  if (!data.dead) return null;
  return [table(["Task", "Error", "Message", "Worker", "Ended"], data.dead.tasks.map((task) => h("tr", { key: task.task_id },
    h("td", null, taskLink(task.task_id)), h("td", null, task.failure?.error_class || ""),
    h("td", { class: "message" }, beginning(task.failure?.message || "", task.task_id, ctx)), h("td", null, workerLink(task.worker_id)),
    h("td", null, ago(task.ended_unix_ms, ctx.now)))), nothing("Nothing failed", "A task whose budget runs out is parked here with its evidence.")),
  data.dead.tasks.length > 0 && h("p", null, h("a", { href: href("failures", { name: search.name }) }, "With all their evidence"))];
}

function all(data, ctx, search) {
  const { state, cursor } = ctx.params;
  const go = (params) => {
    location.hash = href("search", { name: search.name, tab: "all", ...params });
  };
  return [
    h("div", { class: "filters", role: "group", "aria-label": "State" },
      ["", ...STATES].map((one) => h("button", { key: one || "any", type: "button", "aria-pressed": String((state || "") === one),
        onclick: () => go({ state: one }) }, one ? stateWord(one) : "all"))),
    data.tasks && table(["Task", "State", ">Leases", "Worker", "Requires", "Submitted"], data.tasks.tasks.map((task) => h("tr", { key: task.task_id },
      h("td", null, taskLink(task.task_id)), h("td", null, statePill(task.state)), h("td", { class: "number" }, count(task.epoch)),
      h("td", null, workerLink(task.worker_id)), h("td", { class: "text" }, task.requires), h("td", null, ago(task.submitted_unix_ms, ctx.now)))),
    nothing("None here", data.tasks.cursor ? "There may be some further on." : "No task of the search is in this state.")),
    h("div", { class: "buttons" },
      cursor && button("From the first", () => go({ state })),
      data.tasks?.cursor && button("Further", () => go({ state, cursor: data.tasks.cursor }))),
  ];
}
