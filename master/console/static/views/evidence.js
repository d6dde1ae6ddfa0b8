// One lease of a task and how it ended.

import { h } from "../dom.js";
import { bytes, clock, count, printed, signalName, span } from "../format.js";
import { facts, pill, workerLink } from "../parts.js";

const KINDS = { success: "succeeded", failure: "failed", loss: "lost", out_of_memory: "failed", release: "released", expired: "lost" };

export function leaseCard(record, ctx) {
  const took = record.duration_seconds ? record.duration_seconds * 1000 : record.ended_unix_ms - record.leased_unix_ms;
  const memory = record.memory;
  return h("article", { key: record.epoch, class: "lease" },
    h("header", null, h("h3", null, `Lease ${record.epoch}`), pill(record.outcome.replaceAll("_", " "), KINDS[record.outcome] || record.outcome),
      h("span", null, "on ", workerLink(record.worker_id) || "a worker that is not known"),
      h("span", { class: "quiet", title: `${clock(record.leased_unix_ms)} to ${clock(record.ended_unix_ms)}` }, `${span(took)}, ended ${span(ctx.now - record.ended_unix_ms)} ago`)),
    facts([
      ["Signal", record.exit_signal ? `${signalName(record.exit_signal)} (${record.exit_signal})` : ""],
      ["Exit code", record.exit_code ? String(record.exit_code) : ""],
      ["Steps", record.steps_end ? `${count(record.steps_start)} to ${count(record.steps_end)}` : ""],
      ["Went on from", record.steps_start ? `the checkpoint of step ${count(record.steps_start)}` : ""],
      ["Memory", memory?.peak_bytes ? `${bytes(memory.peak_bytes)} at its peak${memory.limit_bytes ? ` of ${bytes(memory.limit_bytes)}` : ""}` : ""],
    ]),
    (record.error_class || record.error_message) && h("p", { class: "error" }, h("strong", null, record.error_class || "error"), ": ", record.error_message || ""),
    record.log_tail && h("details", { open: record.outcome !== "success" }, h("summary", null, "Its last output"), h("pre", { class: "output", tabindex: "0" }, printed(record.log_tail))));
}
