// The page's one loop: which page is wanted, what it needs, asking for it again and again, and showing it.

import { ApiError, get } from "./api.js";
import { h, render } from "./dom.js";
import { dismiss, say } from "./dialogs.js";
import { count, span } from "./format.js";
import { href, nothing, pill } from "./parts.js";
import * as events from "./views/events.js";
import * as failures from "./views/failures.js";
import * as home from "./views/home.js";
import * as leases from "./views/leases.js";
import * as queue from "./views/queue.js";
import * as search from "./views/search.js";
import * as task from "./views/task.js";
import * as workers from "./views/workers.js";

const PAGES = new Map(Object.entries({ "": home, search, queue, workers, leases, failures, events, task }));
const MISSING = {
  title: "No such page",
  view: () => nothing("There is no such page", ["The address names none of the console's pages. ", h("a", { href: href("") }, "All searches")]),
};
const pageOf = (path) => PAGES.get(path) || MISSING;
const TABS = [["", "Searches"], ["queue", "Queue"], ["workers", "Workers"], ["leases", "Leases"], ["failures", "Failures"],
  ["events", "Events"]];
const REFRESH_MS = 1000;
const RETRY_MS_MAX = 5000;

const state = {
  page: "",
  params: {},
  // Of the present page: what was answered last, and what went wrong with it.
  data: {},
  errors: {},
  glance: null,
  aheadMs: 0,
  failures: 0,
  lostAt: 0,
  why: "",
};
let timer = 0;
let round = 0;
// Which tab was brought into view, with or without its number.
let broughtUp = "";

/** What a page is given beside its data. */
function context() {
  const now = Date.now() + state.aheadMs;
  const main = document.getElementById("main");
  return { now, params: state.params, glance: state.glance, width: Math.max(280, main.clientWidth), refresh, redraw: draw };
}

function route() {
  const [page, search] = location.hash.replace(/^#\/?/, "").split("?");
  const params = Object.fromEntries(new URLSearchParams(search || ""));
  const moved = page !== state.page || JSON.stringify(params) !== JSON.stringify(state.params);
  if (moved) {
    const other = page !== state.page || params.name !== state.params.name || params.id !== state.params.id;
    pageOf(state.page).leave?.();
    // What it asks was about the page before, with its figures.
    dismiss();
    Object.assign(state, { page, params });
    if (other) {
      Object.assign(state, { data: {}, errors: {} });
      window.scrollTo(0, 0);
    }
  }
  const about = params.name || params.id;
  document.title = `${about ? `${about} · ` : ""}${pageOf(page).title} · Tenure`;
  draw();
  refresh();
}

function refresh() {
  clearTimeout(timer);
  round += 1;
  ask(round);
}

/** One round: everything that is on the page, at once; then, after a while, the next. */
async function ask(mine) {
  const page = pageOf(state.page);
  const paths = { glance: "/api/glance", ...page.paths?.(state.params, state) };
  const answers = await Promise.allSettled(Object.values(paths).map(get));
  // Somebody went to another page meanwhile, or pressed a button: that round counts.
  if (mine !== round) return;
  Object.keys(paths).forEach((name, index) => take(name, answers[index]));
  const lost = answers.some((answer) => answer.status === "rejected" && isPassing(answer.reason));
  state.failures = lost ? state.failures + 1 : 0;
  if (!lost && state.lostAt) {
    say(`The master answers again, after ${span(Date.now() - state.lostAt)}.`);
    state.lostAt = 0;
  }
  if (lost && !state.lostAt) state.lostAt = Date.now();
  draw();
  if (document.hidden) return;
  timer = setTimeout(refresh, Math.min(RETRY_MS_MAX, REFRESH_MS * 2 ** Math.min(3, state.failures)));
}

const isPassing = (error) => !(error instanceof ApiError) || error.passing;

function take(name, answer) {
  if (answer.status === "rejected") {
    if (isPassing(answer.reason)) state.why = answer.reason.message;
    else state.errors[name] = answer.reason;
    return;
  }
  delete state.errors[name];
  if (name !== "glance") {
    state.data[name] = answer.value;
    return;
  }
  const before = state.glance?.master;
  state.glance = answer.value;
  state.aheadMs = answer.value.now_unix_ms - Date.now();
  if (before && before.version !== answer.value.master.version) location.reload();
  else if (before && before.master_id !== answer.value.master.master_id) say("This is another master, or the same one restarted.");
}

// ---- what is drawn ------------------------------------------------------------------------------------------------

function draw() {
  const ctx = context();
  drawHead();
  drawBanner();
  const main = document.getElementById("main");
  const page = pageOf(state.page);
  const error = Object.values(state.errors)[0];
  let body;
  if (error) body = nothing(error.status === 404 ? "There is nothing of this name" : "This can't be shown", error.message);
  else if (state.glance) body = page.view(state.data, ctx);
  else body = state.failures ? null : h("p", { class: "quiet" }, "Asking the master…");
  // Whoever reads the end of an output goes on reading its end.
  const atEnd = new Map([...main.querySelectorAll(".tail")].map((node) => [node, node.scrollHeight - node.scrollTop - node.clientHeight < 24]));
  render(main, h("div", { key: `${state.page} ${state.params.name || ""} ${state.params.id || ""}`, class: "page" }, body));
  for (const node of main.querySelectorAll(".tail")) if (atEnd.get(node) !== false) node.scrollTop = node.scrollHeight;
  drawFoot();
}

function drawHead() {
  const glance = state.glance;
  const numbers = glance ? {
    "": glance.searches.filter((one) => (one.tasks?.LEASED || 0) + (one.tasks?.QUEUED || 0) + (one.tasks?.SCHEDULED || 0)).length,
    queue: glance.tasks.QUEUED,
    workers: glance.workers.live,
    leases: glance.leases,
    failures: glance.tasks.FAILED,
  } : {};
  const here = ["search", "task"].includes(state.page) ? "" : state.page;
  render(document.getElementById("head"),
    h("a", { class: "brand", href: "#/" }, h("img", { src: "/icon.svg", alt: "", width: 26, height: 26 }), "Tenure"),
    h("nav", { "aria-label": "Pages" }, TABS.map(([page, label]) =>
      h("a", { key: page, href: href(page), "aria-current": page === here ? "page" : undefined,
        class: page === "failures" && numbers.failures ? "bad" : undefined },
      label, numbers[page] > 0 && h("b", null, count(numbers[page]))))),
    h("span", { class: "link" }, state.failures ? pill("reconnecting", "lost") : glance && pill("live", "alive")));
  bringUp(`${here} ${Boolean(glance)}`);
}

/** On a narrow window the tabs scroll: the present one is brought into view once, and is the reader's to move from then on. */
function bringUp(which) {
  if (which === broughtUp) return;
  broughtUp = which;
  const nav = document.querySelector("#head nav");
  const place = nav.querySelector("[aria-current]")?.getBoundingClientRect();
  if (place) nav.scrollLeft += place.left + place.width / 2 - nav.getBoundingClientRect().left - nav.clientWidth / 2;
}

function drawBanner() {
  const lines = [];
  if (state.failures) {
    const since = state.lostAt ? `, for ${span(Date.now() - state.lostAt)}` : "";
    lines.push(h("p", { class: "lost" }, h("strong", null, `No news from the master: ${state.why}${since}.`),
      " What you see is what was last heard. Evaluations run on; leases expire only if another master serves the store. This page tries again by itself."));
  }
  for (const warning of (!state.failures && state.glance?.warnings) || []) lines.push(h("p", { class: "warning" }, warning));
  render(document.getElementById("banner"), lines);
}

function drawFoot() {
  const master = state.glance?.master;
  render(document.getElementById("foot"), master && [
    h("span", null, `master ${master.master_id}, version ${master.version}`),
    h("span", null, `up ${span(Date.now() + state.aheadMs - master.started_unix_ms)}`),
    h("span", null, `${master.store}, ${master.durability}`),
  ]);
}

window.addEventListener("hashchange", route);
window.addEventListener("resize", draw);
document.addEventListener("visibilitychange", () => !document.hidden && refresh());
route();
