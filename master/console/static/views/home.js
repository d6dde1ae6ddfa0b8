// All searches: those that go on as cards, those that are done as rows.

import { query } from "../api.js";
import { sparkline } from "../chart.js";
import { h } from "../dom.js";
import { ago, count, figure, plural, span } from "../format.js";
import { allTasks, code, href, leftOut, nothing, openTasks, pill, searchLink, standing, table, taskBar, waitLine, waits } from "../parts.js";

export const title = "Searches";

// Those with open tasks come first; of a few, ended ones fill up.
const CARDS_MIN = 8;
const CARDS_MAX = 16;

function cardsOf(glance) {
  const open = glance.searches.filter(openTasks).length;
  return glance.searches.slice(0, Math.min(CARDS_MAX, Math.max(CARDS_MIN, open)));
}

export function paths(params, state) {
  const names = state.glance ? cardsOf(state.glance).map((search) => search.name) : [];
  return names.length ? { curves: query("/api/curves", { name: names }), queues: "/api/queues" } : {};
}

export function view(data, ctx) {
  const { glance } = ctx;
  if (!glance.searches.length) return newcomer(glance);
  const cards = cardsOf(glance);
  const rest = glance.searches.filter((search) => !cards.includes(search));
  return [
    tiles(glance, ctx),
    h("h1", null, "Searches"),
    h("div", { class: "cards" }, cards.map((search) => card(search, data, ctx))),
    rest.length > 0 && h("h2", null, "The others"),
    rest.length > 0 && table(["Search", "Status", "Tasks", ">Ended", ">Failed", ">Best", "Last end"], rest.map((search) => row(search, data, ctx))),
    leftOut(glance.searches_left_out, "search"),
  ];
}

function tiles(glance, ctx) {
  const { workers, tasks } = glance;
  const tile = (key, name, value, more, target) =>
    h("a", { key, class: `tile ${key}`, href: href(target) }, h("span", null, name), h("strong", null, value), h("small", null, more || " "));
  const oldest = Math.max(0, ...glance.searches.map((search) => search.oldest_queued_ms || 0));
  const trouble = [[workers.silent, "silent"], [workers.cordoned, "cordoned"], [workers.draining, "draining"]]
    .filter(([number]) => number).map(([number, word]) => `${number} ${word}`).join(", ");
  return h("section", { class: "tiles", "aria-label": "The broker at a glance" },
    tile("running", "Running", count(tasks.LEASED), `of ${plural(workers.slots, "slot")}`, "leases"),
    tile("waiting", "Waiting", count(tasks.QUEUED + tasks.SCHEDULED), oldest ? `the oldest for ${span(oldest)}` : "nothing waits", "queue"),
    tile("done", "Succeeded", count(tasks.SUCCEEDED), glance.counters.late_accepted ? `${count(glance.counters.late_accepted)} taken late` : "", ""),
    tile(tasks.FAILED ? "failed" : "none", "Dead letters", count(tasks.FAILED), tasks.FAILED ? "look at the evidence" : "none", "failures"),
    tile(workers.live ? "workers" : "failed", "Workers", count(workers.live),
      trouble || (workers.gpus ? plural(workers.gpus, "GPU") : workers.live ? "live" : "start one"), "workers"));
}

/** Of an active search its cards say how it stands. */
const standingPill = (search) => standing(search) !== "active" && pill(standing(search));

/** What of it will not run until somebody does something; of one that is paused or cancelled its pill says that. */
const stuckOf = (data, search) => (search.status === "active" ? waits(data.queues, search).filter((queue) => queue.why.stuck) : []);

function card(search, data, ctx) {
  const curves = data.curves || {};
  const curve = Object.hasOwn(curves, search.name) ? curves[search.name] : undefined;
  const stuck = stuckOf(data, search);
  const open = openTasks(search);
  const all = allTasks(search);
  const best = search.best_fitness;
  return h("article", { key: search.name, class: "card" },
    h("header", null, h("h3", null, searchLink(search.name)), standingPill(search), stuck.length > 0 && pill("stuck")),
    stuck.map(waitLine),
    sparkline(curve, `best so far of ${search.name}: ${figure(best)}`),
    h("div", { class: "row" },
      h("span", null, h("strong", null, figure(best)), " best"),
      h("span", null, h("strong", null, count(all - open)), ` of ${count(all)} ended`)),
    taskBar(search.tasks || {}),
    h("footer", null,
      h("span", null, `${count(search.tasks?.LEASED)} running, ${count((search.tasks?.QUEUED || 0) + (search.tasks?.SCHEDULED || 0))} waiting`),
      h("span", null, search.last_ended_unix_ms ? `last end ${ago(search.last_ended_unix_ms, ctx.now)}` : "")));
}

function row(search, data, ctx) {
  const all = allTasks(search);
  return h("tr", { key: search.name },
    h("td", null, searchLink(search.name)),
    h("td", null, standingPill(search), stuckOf(data, search).length > 0 && pill("stuck")),
    h("td", { class: "wide" }, taskBar(search.tasks || {})),
    h("td", { class: "number" }, `${count(all - openTasks(search))} of ${count(all)}`),
    h("td", { class: "number" }, count(search.tasks?.FAILED)),
    h("td", { class: "number" }, figure(search.best_fitness)),
    h("td", null, ago(search.last_ended_unix_ms, ctx.now)));
}

/** For whoever has just started a first master. */
function newcomer(glance) {
  const address = glance.master.port ? `${location.hostname}:${glance.master.port}` : "HOST:PORT";
  return h("section", { class: "newcomer" },
    h("h1", null, "The master runs. Nothing has been submitted yet."),
    h("ol", null,
      h("li", null, h("h3", null, glance.workers.live ? "A worker is there" : "Start a worker"),
        glance.workers.live ? h("p", null, `${plural(glance.workers.live, "worker")} with ${plural(glance.workers.slots, "slot")}.`)
          : h("p", null, "On each machine that is to train, also on this one:"),
        h("pre", null, `tenure worker --master ${address}`)),
      h("li", null, h("h3", null, "Submit a first search"),
        h("p", null, "From a checkout, which has examples:"),
        h("pre", null, `TENURE_MASTER=${address} python examples/first_search.py`),
        h("p", null, "Or tasks of your own, one JSON object a line:"),
        h("pre", null, `tenure tasks submit --master ${address} --search first tasks.jsonl`)),
      h("li", null, h("h3", null, "Watch it here"),
        h("p", null, "Its results, what waits and why, and what failed appear on this page by themselves. ",
          code("tenure stats"), " shows the same in a terminal."))),
    glance.workers.live === 0 && nothing("No worker lives", "Tasks can be submitted all the same: they wait."));
}
