// One task: everything that is known of it, and what it prints now.

import { get, query } from "../api.js";
import { taskButtons } from "../actions.js";
import { h } from "../dom.js";
import { ago, bytes, clock, count, figure, plural, printed, span } from "../format.js";
import { beginning, facts, nothing, progress, searchLink, statePill, table, workerLink } from "../parts.js";
import { leaseCard } from "./evidence.js";
import { whyDead } from "./failures.js";

export const title = "Task";

const OUTPUT_CHARS_MAX = 200000;
const TAIL_MS = 1000;
let tail = null;

export function leave() {
  if (tail) clearTimeout(tail.timer);
  tail = null;
}

export const paths = ({ id }) => ({ task: query("/api/task", { id }) });

export function view(data, ctx) {
  if (!data.task) return h("p", { class: "quiet" }, "Asking the master…");
  const { task } = data.task;
  follow(task, ctx);
  const records = (task.attempt_records || []).toReversed();
  return [
    h("div", { class: "title" }, h("h1", { class: "id" }, task.task_id), statePill(task.state), task.cancel_requested && statePill("CANCELLED"),
      h("div", { class: "buttons" }, taskButtons(task, ctx.refresh))),
    h("section", { class: "panel" }, standing(task, ctx), facts(known(task, ctx))),
    task.metrics && h("section", { class: "panel" }, h("h2", null, "Result"), table(["Metric", ">Value"],
      Object.entries(task.metrics).sort().map(([name, value]) => h("tr", { key: name }, h("td", null, name), h("td", { class: "number" }, figure(value)))), null)),
    !(ended(task) && records[0]?.log_tail) && outputPanel(task),
    h("section", { class: "panel" }, h("h2", null, records.length ? `Leases that ended (${count(records.length)} kept, the newest first)` : "Leases"),
      records.length ? records.map((record) => leaseCard(record, ctx)) : nothing("None has ended", "Each lease leaves its evidence here: worker, epoch, signal, error, last output.")),
    h("section", { class: "panel" }, h("h2", null, "What was asked for"),
      facts([["Key", task.key], ["Evaluator", task.evaluator], ["Data set", task.config?.dataset], ["Training epochs", task.config?.num_epochs && String(task.config.num_epochs)],
        ["Batch size", task.config?.batch_size && String(task.config.batch_size)], ["Learning rate", task.config?.learning_rate && String(task.config.learning_rate)],
        ...Object.entries(task.config?.extra || {}).sort()]),
      task.architecture && h("details", null, h("summary", null, "Architecture"), h("pre", { class: "output", tabindex: "0" }, pretty(task)))),
  ];
}

const ended = (task) => ["SUCCEEDED", "FAILED", "CANCELLED"].includes(task.state);

function standing(task, ctx) {
  if (task.state === "LEASED") {
    return h("p", { class: "why" }, "Runs on ", workerLink(task.worker_id), ` for ${span(ctx.now - task.leased_unix_ms)}: `, progress(task),
      task.progress ? `, reported ${ago(task.progress.reported_unix_ms, ctx.now)}` : "");
  }
  if (task.state === "FAILED") return h("p", { class: "why failed" }, h("strong", null, task.failure?.error_class || "failed"), ": ", beginning(task.failure?.message || "", task.task_id, ctx), ` (${whyDead(task)})`);
  if (task.state === "SCHEDULED") return h("p", { class: "why" }, `Is tried again in ${span(task.scheduled_in_ms)}.`, task.failure ? [` The last error: ${task.failure.error_class}: `, beginning(task.failure.message || "", task.task_id, ctx)] : "");
  return null;
}

function known(task, ctx) {
  const budget = (used, most) => `${used || 0} of ${most || 0}`;
  return [
    ["Search", searchLink(task.search)],
    ["Lease", task.state === "LEASED" ? `number ${task.epoch}, ${span(task.lease_left_ms)} left` : plural(task.epoch || 0, "lease")],
    ["Last worker", task.state === "LEASED" ? "" : workerLink(task.worker_id)],
    ["Attempts spent", budget(task.attempts, task.max_attempts)],
    ["Losses spent", budget(task.losses, task.max_losses)],
    ["Out of memory", task.out_of_memory ? budget(task.out_of_memory, task.max_out_of_memory) : ""],
    ["Went on from checkpoints", task.resumes ? plural(task.resumes, "time") : ""],
    ["Checkpoint", task.checkpoint ? `step ${count(task.checkpoint.step)}, ${bytes(task.checkpoint.size_bytes)}${
      task.checkpointed_unix_ms ? `, ${ago(task.checkpointed_unix_ms, ctx.now)}` : ""}` : ""],
    ["Requires", task.requires === "any" ? "" : task.requires],
    ["Priority", task.priority ? String(task.priority) : ""],
    ["Submitted", `${clock(task.submitted_unix_ms)}, ${ago(task.submitted_unix_ms, ctx.now)}`],
    ["Ended", task.ended_unix_ms ? `${clock(task.ended_unix_ms)}, ${ago(task.ended_unix_ms, ctx.now)}` : ""],
    ["Took", task.duration_seconds ? span(task.duration_seconds * 1000) : ""],
    ["Detail", task.detail || ""],
  ];
}

function pretty(task) {
  if (task.architecture_left_out) return `${task.architecture}… (${plural(task.architecture_left_out, "character")} more)`;
  try {
    return JSON.stringify(JSON.parse(task.architecture), null, 2);
  } catch {
    return task.architecture;
  }
}

// ---- what it prints -----------------------------------------------------------------------------------------------

/** Begin to read its output, once; again when the task runs again. */
function follow(task, ctx) {
  if (tail && tail.id === task.task_id) {
    const idle = tail.ended && task.state === "LEASED";
    if (!idle) return;
    tail.ended = false;
  } else {
    leave();
    tail = { id: task.task_id, epoch: 0, place: 0, text: "", note: "", ended: false, heard: new Set(), decoder: new TextDecoder(), timer: 0 };
  }
  read(tail, ctx);
}

async function read(mine, ctx) {
  try {
    const { items } = await get(query("/api/output", { id: mine.id, epoch: String(mine.epoch), place: String(mine.place) }));
    if (mine !== tail) return;
    items.forEach((item) => hear(mine, item));
  } catch (error) {
    if (mine !== tail) return;
    if (!error.passing) mine.ended = true;
    mine.note = error.message;
  }
  ctx.redraw();
  if (!mine.ended) mine.timer = setTimeout(() => (document.hidden ? wait(mine, ctx) : read(mine, ctx)), TAIL_MS);
}

function wait(mine, ctx) {
  document.addEventListener("visibilitychange", () => mine === tail && read(mine, ctx), { once: true });
}

function hear(mine, item) {
  if (item.run) {
    mine.epoch = item.run.epoch;
    mine.place = 0;
    mine.decoder = new TextDecoder();
    mine.text += `${mine.text && !mine.text.endsWith("\n") ? "\n" : ""}── lease ${item.run.epoch}, on ${item.run.worker_id}\n`;
  }
  // A run's last output as it is kept, again, of what was heard while it ran.
  const again = item.output?.recorded && mine.heard.has(item.output.epoch);
  if (item.output && !again) {
    mine.heard.add(item.output.epoch);
    if (item.output.left_out_bytes) mine.text += `\n… ${bytes(item.output.left_out_bytes)} left out …\n`;
    const raw = Uint8Array.from(atob(item.output.data || ""), (character) => character.charCodeAt(0));
    mine.text += printed(mine.decoder.decode(raw, { stream: true }));
    mine.text = mine.text.slice(-OUTPUT_CHARS_MAX);
    mine.place = item.output.place || mine.place;
    mine.note = "";
  }
  if (item.note) mine.note = item.note;
  // Asked without following, the master says how things stand behind each answer.
  if (item.end) mine.ended = ended(item.end);
}

function outputPanel(task) {
  const live = task.state === "LEASED";
  return h("section", { class: "panel" },
    h("div", { class: "title" }, h("h2", null, "Output"), live && h("span", { class: "pill alive" }, "live")),
    tail?.text ? h("pre", { class: "output tail", tabindex: "0", "aria-label": "What the evaluation prints" }, tail.text) : null,
    tail?.note && h("p", { class: "quiet" }, tail.note),
    !tail?.text && !tail?.note && h("p", { class: "quiet" }, live ? "It has printed nothing yet." : "Nothing is there."));
}
