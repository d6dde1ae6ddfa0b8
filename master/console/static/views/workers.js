// The workers with their slots and GPUs.

import { workerButtons } from "../actions.js";
import { h } from "../dom.js";
import { ago, bytes, count, plural, span } from "../format.js";
import { bar, facts, href, leftOut, nothing, pill, table, taskLink, workerLink } from "../parts.js";

export const title = "Workers";

export const paths = () => ({ workers: "/api/workers" });

const CARDS_MAX = 30;
let sought = "";

export function view(data, ctx) {
  if (!data.workers) return h("p", { class: "quiet" }, "Asking the master…");
  const { workers, gone } = data.workers;
  const { id } = ctx.params;
  if (id) {
    const one = workers.filter((worker) => worker.worker_id === id);
    return [h("p", null, h("a", { href: href("workers") }, "All workers")),
      one.length ? h("div", { class: "cards single" }, card(one[0], ctx))
        : nothing(`${id} is gone`, "It said goodbye, or was silent for ten leases' time. What it held runs elsewhere.")];
  }
  const seek = (event) => {
    sought = event.target.value;
    ctx.redraw();
  };
  const found = workers.filter((worker) => matches(worker, sought.toLowerCase()));
  return [
    h("div", { class: "title" }, h("h1", null, "Workers"),
      workers.length > 1 && h("label", { class: "seek" }, "Find ", h("input", { type: "search", value: sought, oninput: seek, placeholder: "id, host, label, status" }))),
    h("p", { class: "quiet" }, `${plural(workers.length + data.workers.left_out, "worker")}`, gone ? `; ${count(gone)} gone` : ""),
    found.length === 0 ? nothing(sought ? "None of that" : "No worker", sought ? "No worker has this in its id, host, labels, status or mode."
      : "Start one on each machine that is to train: tenure worker --master HOST:PORT")
      : found.length <= CARDS_MAX ? h("div", { class: "cards wide" }, found.map((worker) => card(worker, ctx)))
        : table(["Worker", "Status", "Slots", ">GPUs", ">CPU", ">Memory", "Heard of", ""], found.map((worker) => row(worker, ctx))),
    leftOut(data.workers.left_out, "worker"),
  ];
}

function matches(worker, text) {
  const labels = Object.entries(worker.labels || {}).map(([name, value]) => `${name}=${value}`);
  return [worker.worker_id, worker.host, worker.status, worker.mode, ...labels].some((part) => part?.toLowerCase().includes(text));
}

const pills = (worker) => [pill(worker.status), worker.mode !== "active" && pill(worker.mode)];

/** Whether its own figures are of a time that has passed: it has missed a lease's time of heartbeats. */
const isOld = (worker) => worker.status !== "live";

const heard = (worker) => `${span(worker.last_seen_ms_ago || 0)} ago`;

function row(worker, ctx) {
  const past = isOld(worker) ? "past" : "";
  return h("tr", { key: worker.worker_id }, h("td", null, workerLink(worker.worker_id)), h("td", null, pills(worker)),
    h("td", null, slots(worker)), h("td", { class: "number" }, count(worker.num_gpus)),
    h("td", { class: `number ${past}` }, percent(worker.cpu_percent)), h("td", { class: `number ${past}` }, percent(worker.memory_percent)),
    h("td", null, heard(worker)), h("td", null, h("div", { class: "buttons" }, workerButtons(worker, ctx.refresh))));
}

function card(worker, ctx) {
  const labels = Object.entries(worker.labels || {}).map(([name, value]) => `${name}=${value}`);
  return h("article", { key: worker.worker_id, class: `card worker ${worker.status}` },
    h("header", null, h("h3", null, workerLink(worker.worker_id)), pills(worker), h("div", { class: "buttons" }, workerButtons(worker, ctx.refresh))),
    slots(worker),
    (worker.slot_list || []).filter((slot) => slot.cordon_reason).map((slot) =>
      h("p", { key: slot.slot || 0, class: "why stuck" }, `Slot ${slot.slot || 0} takes no tasks: ${slot.cordon_reason}`)),
    isOld(worker) && h("p", { class: "why stuck" }, `Last heard ${heard(worker)}: the figures are what it said then.`),
    h("div", { class: `gauges ${isOld(worker) ? "past" : ""}` },
      gauge("CPU", worker.cpu_percent), gauge("memory", worker.memory_percent),
      (worker.gpus || []).map((gpu) => gpuGauges(gpu))),
    facts([
      ["Holds", plural(worker.leases || 0, "task")],
      ["Ended well", count(worker.tasks_completed)],
      ["Failed", worker.tasks_failed ? count(worker.tasks_failed) : ""],
      ["Heard of", heard(worker)],
      isOld(worker) ? ["Registered", ago(worker.registered_unix_ms, ctx.now)] : ["Up", span(ctx.now - worker.registered_unix_ms)],
      ["GPUs a slot", worker.num_gpus ? String(worker.gpus_per_slot || 0) : ""],
      ["Memory a slot", worker.slot_memory_bytes ? bytes(worker.slot_memory_bytes) : ""],
      ["Labels", labels.join(", ")],
      ["Takes code", worker.accepts_code ? "yes" : ""],
      ["Version", worker.version || ""],
      ["Dispatch", worker.dispatch === "session" ? "" : worker.dispatch],
    ]));
}

/** A square for each slot, in what it does now; of a worker that is not heard, tasks are those that it still holds by the store. */
function slots(worker) {
  const list = worker.slot_list?.length ? worker.slot_list : Array.from({ length: worker.slots || 0 }, (_, slot) => ({
    slot, state: slot < (worker.leases || 0) ? "running" : "free" }));
  const free = list.filter((slot) => slot.state === "free" && !slot.cordon_reason).length;
  const past = isOld(worker);
  const name = past ? `${plural(list.length, "slot")}, ${plural(worker.leases || 0, "task")} held` : `${plural(list.length, "slot")}, ${free} free`;
  return h("div", { class: "slots", role: "list", "aria-label": name }, list.map((slot) => {
    const before = past && !slot.task_id && !slot.cordon_reason;
    const state = slot.cordon_reason ? "cordoned" : before ? "not heard" : slot.state || "free";
    const label = `slot ${slot.slot || 0}: ${state}${slot.gpus?.length ? `, GPU ${slot.gpus.join(", ")}` : ""}`;
    return h("span", { key: slot.slot || 0, role: "listitem", class: `slot ${before ? "past" : state}`, title: label }, h("span", { class: "hidden" }, label),
      slot.task_id ? taskLink(slot.task_id) : state);
  }));
}

function gpuGauges(gpu) {
  const memory = gpu.memory_total_bytes ? (100 * (gpu.memory_used_bytes || 0)) / gpu.memory_total_bytes : undefined;
  const more = [gpu.temperature_celsius && `${Math.round(gpu.temperature_celsius)} °C`, gpu.power_watts && `${Math.round(gpu.power_watts)} W`,
    gpu.ecc_uncorrected && `${gpu.ecc_uncorrected} memory errors`, gpu.last_xid && `XID ${gpu.last_xid}`, (gpu.throttling || []).join(", ")].filter(Boolean);
  return h("div", { key: gpu.gpu, class: "gpu" },
    h("p", null, h("strong", null, `GPU ${gpu.gpu}`), " ", h("span", { class: "quiet" }, [gpu.model, ...more].filter(Boolean).join(" · "))),
    gpu.fault && h("p", { class: "why stuck" }, gpu.fault),
    gauge("busy", gpu.utilization), gauge("memory", memory, gpu.memory_total_bytes && `${bytes(gpu.memory_used_bytes)} of ${bytes(gpu.memory_total_bytes)}`));
}

const percent = (value) => (value === undefined ? "–" : `${Math.round(value)} %`);

function gauge(name, value, text) {
  return h("div", { class: "gauge", key: name }, h("span", null, name),
    value === undefined ? h("span", { class: "quiet" }, "–") : bar([[value > 95 ? "queued" : "leased", Math.max(0.5, value)]], 100, `${name}: ${percent(value)}`),
    h("small", null, text || percent(value)));
}
