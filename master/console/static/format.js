// Figures for people.

const NUMBER = new Intl.NumberFormat("en-US");
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

export const count = (number) => NUMBER.format(number || 0);

export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** With the verb that goes with it: `1 task waits`, `2 tasks wait`. */
export const clause = (number, word, one, many) => `${plural(number, word)} ${number === 1 ? one : many}`;

/** A length of time: two units at most. */
export function span(ms) {
  if (!(ms >= 0)) return "–";
  if (ms < SECOND) return `${Math.round(ms)} ms`;
  if (ms < 10 * SECOND) return `${(ms / SECOND).toFixed(1)} s`;
  if (ms < MINUTE) return `${Math.round(ms / SECOND)} s`;
  if (ms < 10 * MINUTE) return `${Math.floor(ms / MINUTE)} min ${Math.floor((ms % MINUTE) / SECOND)} s`;
  if (ms < HOUR) return `${Math.round(ms / MINUTE)} min`;
  if (ms < DAY) return `${Math.floor(ms / HOUR)} h ${Math.floor((ms % HOUR) / MINUTE)} min`;
  return `${Math.floor(ms / DAY)} d ${Math.floor((ms % DAY) / HOUR)} h`;
}

export function ago(unixMs, now) {
  if (!unixMs) return "–";
  return now - unixMs < 2 * SECOND ? "just now" : `${span(now - unixMs)} ago`;
}

export function clock(unixMs) {
  return unixMs ? new Date(unixMs).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : "–";
}

export const timeOfDay = (unixMs) => new Date(unixMs).toLocaleTimeString(undefined, { hour12: false });

/** A figure of any size: five digits that matter. */
export function figure(value) {
  if (value === undefined || value === null) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(3);
  if (Number.isInteger(value)) return count(value);
  return size >= 1000 ? NUMBER.format(Math.round(value)) : String(Number(value.toPrecision(5)));
}

export function rate(perHour) {
  if (!perHour) return "–";
  if (perHour >= 3600) return `${figure(Math.round(perHour / 360) / 10)} / s`;
  if (perHour >= 120) return `${figure(Math.round(perHour / 6) / 10)} / min`;
  if (perHour >= 2) return `${figure(Math.round(perHour * 10) / 10)} / h`;
  return `${figure(Math.round(perHour * 240) / 10)} / d`;
}

export function bytes(number) {
  if (!number) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(number) / 10));
  return `${Number((number / 1024 ** power).toPrecision(3))} ${units[power]}`;
}

/** An id without its middle: the beginning tells shards and times apart, the end tasks of one time. */
export const shortId = (taskId) => (taskId.length > 16 ? `${taskId.slice(0, 6)}…${taskId.slice(-8)}` : taskId);

// Colours and cursor movements, for terminals.
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-_])/g;

/** What a program printed, without what only a terminal understands. */
export const printed = (text) => text.replace(ESCAPES, "").replace(/\r(?!\n)/g, "\n");

const SIGNALS = { 1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
  11: "SIGSEGV", 13: "SIGPIPE", 15: "SIGTERM", 24: "SIGXCPU" };

export const signalName = (number) => SIGNALS[number] || `signal ${number}`;
