// What waits, for how long, and why.

import { h } from "../dom.js";
import { clause, count, span } from "../format.js";
import { leftOut, nothing, searchLink, table } from "../parts.js";

export const title = "Queue";

export const paths = () => ({ queues: "/api/queues" });

export function view(data, ctx) {
  if (!data.queues) return h("p", { class: "quiet" }, "Asking the master…");
  const { queues } = data.queues;
  const { tasks } = ctx.glance;
  const stuck = queues.filter((queue) => queue.why.stuck).reduce((sum, queue) => sum + queue.tasks, 0);
  return [
    h("h1", null, "Queue"),
    h("p", { class: "quiet" }, `${clause(tasks.QUEUED, "task", "is", "are")} ready`,
      tasks.SCHEDULED ? `, ${count(tasks.SCHEDULED)} ${tasks.SCHEDULED === 1 ? "waits for a time of its own" : "wait for times of their own"}, such as the pause after a failure` : "",
      stuck ? `. ${count(stuck)} will not run until somebody does something.` : "."),
    table(["Search", "Requires", ">Tasks", ">Oldest", "Why they wait"], queues.map((queue) =>
      h("tr", { key: `${queue.search} ${queue.requirement_class}`, class: queue.why.stuck ? "stuck" : "" },
        h("td", null, searchLink(queue.search)),
        h("td", { class: "text" }, queue.requirements),
        h("td", { class: "number" }, count(queue.tasks)),
        h("td", { class: "number" }, span(queue.oldest_wait_ms)),
        h("td", { class: "message" }, h("span", { class: queue.why.stuck ? "why stuck" : "why" }, queue.why.text)))),
    nothing("Nothing waits", "Every task that is ready has a worker, or none has been submitted.")),
    leftOut(data.queues.left_out, "queue"),
  ];
}
