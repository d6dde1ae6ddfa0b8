// What happened last, at whichever master.

import { h } from "../dom.js";
import { ago, timeOfDay } from "../format.js";
import { nothing, pill, searchLink, statePill, STATES, table, taskLink, workerLink } from "../parts.js";

export const title = "Events";

export const paths = () => (held ? {} : { events: "/api/events" });

const TROUBLE = new Set(["fail", "expire", "cancel"]);
let held = null;
let onlyTrouble = false;

export function leave() {
  held = null;
}

export function view(data, ctx) {
  if (!data.events) return h("p", { class: "quiet" }, "Asking the master…");
  const events = (held || data.events.events).filter((event) => !onlyTrouble || TROUBLE.has(event.transition));
  const toggle = () => {
    held = held ? null : data.events.events;
    ctx.refresh();
  };
  const filter = () => {
    onlyTrouble = !onlyTrouble;
    ctx.redraw();
  };
  return [
    h("div", { class: "title" }, h("h1", null, "Events"),
      h("div", { class: "filters" },
        h("button", { type: "button", "aria-pressed": String(onlyTrouble), onclick: filter }, "only trouble"),
        h("button", { type: "button", "aria-pressed": String(Boolean(held)), onclick: toggle }, held ? "held" : "hold"))),
    h("p", { class: "quiet" }, "The last 200 changes, the newest first. ", h("code", null, "tenure tasks show TASK"), " has the whole history of one task."),
    table(["When", "What", "State after it", "Task", "Search", "Worker", ">Lease"], events.map((event, index) =>
      h("tr", { key: `${event.at_unix_ms} ${event.task_id} ${event.transition} ${index}` },
        h("td", { class: "number", title: ago(event.at_unix_ms, ctx.now) }, timeOfDay(event.at_unix_ms)),
        h("td", null, h("span", { class: TROUBLE.has(event.transition) ? "why stuck" : "" }, event.transition)),
        h("td", null, STATES.includes(event.state) ? statePill(event.state) : event.state && pill(event.state)),
        h("td", null, taskLink(event.task_id)),
        h("td", null, searchLink(event.search)),
        h("td", null, workerLink(event.worker_id)),
        h("td", { class: "number" }, event.epoch || ""))),
    nothing("Nothing has happened", "Submits, claims, results, failures: each appears here.")),
  ];
}
