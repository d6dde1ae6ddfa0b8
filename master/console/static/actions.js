// Every button of the console: what it is called, and what will happen.

import { confirm } from "./dialogs.js";
import { clause, count, plural } from "./format.js";
import { button } from "./parts.js";

export function searchButtons(search, refresh) {
  const tasks = search.tasks || {};
  const name = search.name;
  const running = tasks.LEASED || 0;
  const open = running + (tasks.QUEUED || 0) + (tasks.SCHEDULED || 0);
  const ask = (spec) => () => confirm(spec, refresh);
  const pause = ask({
    title: `Pause ${name}?`,
    what: ["None of its tasks is given out until you resume it.",
      running ? `The ${clause(running, "task", "that runs now goes", "that run now go")} on.` : "None of its tasks runs now."],
    verb: "Pause", action: { action: "pause_search", search: name },
  });
  const resume = ask({
    title: `Resume ${name}?`,
    what: [`Workers are given its tasks again; ${clause(tasks.QUEUED || 0, "task", "waits", "wait")}.`,
      ...(search.status === "cancelled" ? ["It takes new tasks again. What was cancelled stays cancelled."] : [])],
    verb: "Resume", action: { action: "resume_search", search: name },
  });
  const cancel = ask({
    title: `Cancel ${name}?`,
    what: [`${clause(open - running, "task", "that waits is", "that wait are")} cancelled at once.`,
      `${clause(running, "task", "that runs is", "that run are")} told to stop; what ${running === 1 ? "it has done since its" : "they have done since their"} last checkpoint is lost.`,
      "It takes no new tasks until it is resumed. Results that are there stay."],
    verb: "Cancel the search", danger: true, action: { action: "cancel_search", search: name },
  });
  return [
    search.status === "active" ? button("Pause", pause) : button("Resume", resume, "primary"),
    tasks.FAILED > 0 && button(`Requeue ${count(tasks.FAILED)} failed`, () => requeueDead(name, tasks.FAILED, refresh)),
    search.status !== "cancelled" && open > 0 && button("Cancel", cancel, "danger"),
  ];
}

export function requeueDead(search, failed, refresh) {
  confirm({
    title: `Requeue the dead letters of ${search}?`,
    what: [`${clause(failed, "task", "goes", "go")} back into the queue with fresh budgets of attempts and losses.`,
      "Each goes on from its last checkpoint, if it has one.",
      "What made it fail may make it fail again: look at the evidence first."],
    verb: `Requeue ${count(failed)}`, action: { action: "requeue_dead", search },
  }, refresh);
}

export function taskButtons(task, refresh) {
  const id = task.task_id;
  if (task.state === "FAILED" || task.state === "CANCELLED") {
    return [button("Requeue", () => confirm({
      title: "Requeue this task?",
      what: [`${id} goes back into the queue of ${task.search} with fresh budgets.`,
        task.checkpoint ? `It goes on from its checkpoint of step ${count(task.checkpoint.step)}.` : "It starts from nothing."],
      verb: "Requeue", action: { action: "requeue_task", task_id: id },
    }, refresh), "primary")];
  }
  if (task.state === "SUCCEEDED") return [];
  return [button("Cancel", () => confirm({
    title: "Cancel this task?",
    what: [task.state === "LEASED" ? `${task.worker_id} is told to stop it; nothing of this run is kept.`
      : "It is taken out of the queue at once.", "It can be requeued later."],
    verb: "Cancel the task", danger: true, action: { action: "cancel_task", task_id: id },
  }, refresh), "danger")];
}

export function workerButtons(worker, refresh) {
  const id = worker.worker_id;
  const held = plural(worker.leases || 0, "task");
  const mode = worker.mode || "active";
  const drain = () => confirm({
    title: `Drain ${id}?`,
    what: [`It hands back the ${held} it holds, with checkpoints; other workers go on from there. No attempt is spent.`,
      "It is given nothing more until you uncordon it. Its process stays up."],
    verb: "Drain", danger: true, action: { action: "drain_worker", worker_id: id },
  }, refresh);
  const cordon = () => confirm({
    title: `Cordon ${id}?`,
    what: [`It finishes the ${held} it holds.`, "It is given nothing more until you uncordon it."],
    verb: "Cordon", action: { action: "cordon_worker", worker_id: id },
  }, refresh);
  const uncordon = () => confirm({
    title: `Uncordon ${id}?`,
    what: ["It is given tasks again.", "Slots that it has cordoned itself, for a GPU's errors, take tasks again, too."],
    verb: "Uncordon", action: { action: "uncordon_worker", worker_id: id },
  }, refresh);
  const slotCordoned = (worker.slot_list || []).some((slot) => slot.cordon_reason);
  return [
    mode !== "draining" && button("Drain", drain, "", id),
    mode === "active" && button("Cordon", cordon, "", id),
    (mode !== "active" || slotCordoned) && button("Uncordon", uncordon, "primary", id),
  ];
}
