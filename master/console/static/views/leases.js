// Who holds what. Whoever was not heard of for the longest stands first.

import { h } from "../dom.js";
import { ago, bytes, count, plural, span } from "../format.js";
import { bar, leftOut, nothing, progress, searchLink, table, taskLink, workerLink } from "../parts.js";

export const title = "Leases";

export const paths = () => ({ leases: "/api/leases" });

export function view(data, ctx) {
  if (!data.leases) return h("p", { class: "quiet" }, "Asking the master…");
  const { leases } = data.leases;
  const ttl = ctx.glance.master.lease_ttl_ms;
  return [
    h("h1", null, "Leases"),
    h("p", { class: "quiet" }, `${plural(ctx.glance.leases, "task")} under a lease of ${span(ttl)}. One that is not renewed in time is taken back, and its task goes on elsewhere.`),
    table(["Task", "Search", "Worker", ">For", "Progress", ">Reported", "Lease left", "Checkpoint", ">Spent"], leases.map((task) => row(task, ctx, ttl)),
      nothing("Nothing runs", "A task appears here the moment a worker is given it.")),
    leftOut(data.leases.left_out, "lease"),
  ];
}

function row(task, ctx, ttl) {
  const left = task.lease_left_ms || 0;
  const checkpoint = task.checkpoint;
  const at = task.checkpointed_unix_ms;
  return h("tr", { key: `${task.task_id} ${task.epoch}`, class: left < ttl / 3 ? "stuck" : "" },
    h("td", null, taskLink(task.task_id)),
    h("td", null, searchLink(task.search)),
    h("td", null, workerLink(task.worker_id)),
    h("td", { class: "number" }, span(ctx.now - task.leased_unix_ms)),
    h("td", null, progress(task)),
    h("td", { class: "number" }, task.progress ? ago(task.progress.reported_unix_ms, ctx.now) : "–"),
    h("td", null, h("span", { class: "step" }, bar([[left < ttl / 3 ? "failed" : "succeeded", left]], ttl, `${span(left)} left, renewed ${span(ttl - left)} ago`),
      h("small", null, span(left)))),
    h("td", null, checkpoint ? `step ${count(checkpoint.step)}, ${at ? ago(at, ctx.now) : bytes(checkpoint.size_bytes)}` : h("span", { class: "quiet" }, "none yet")),
    h("td", { class: "number" }, spent(task)));
}

function spent(task) {
  const parts = [[task.attempts, task.max_attempts, "attempts"], [task.losses, task.max_losses, "losses"],
    [task.out_of_memory, task.max_out_of_memory, "out of memory"]].filter(([used]) => used);
  return parts.length ? parts.map(([used, most, what]) => `${used}/${most} ${what}`).join(", ") : "–";
}
