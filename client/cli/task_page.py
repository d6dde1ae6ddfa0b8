"""What ``tenure tasks show`` prints for people: everything that is known of one task, readable at 3 a.m."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping

from tenure.client.cli.output import ago, clock, print_pairs, printable, span
from tenure.client.records import AttemptRecord, MemoryReport, TaskRecord
from tenure.common.estimate import show_bytes
from tenure.common.spec import Config, Requirements
from tenure.common.states import TaskState
from tenure.common.traceparent import log_fields


def print_task(task: TaskRecord) -> None:
    """The page of one full record."""
    print_pairs(_head(task))
    if task.metrics:
        _section("result")
        print_pairs((f"  {name}", f"{value:.6g}") for name, value in sorted(task.metrics.items()))
        _text("detail", task.detail)
    if task.failure is not None:
        _section("failure" if task.state is TaskState.FAILED else "last failure")
        print_pairs(
            [
                ("  class", task.failure.error_class),
                ("  message", _indented(task.failure.message, " " * 13)),
                ("  retryable", "yes" if task.failure.retryable else "no: never tried again"),
            ]
        )
    if task.attempt_records:
        _section(f"leases ({len(task.attempt_records)} kept, oldest first)")
        for record in task.attempt_records:
            _print_attempt(record)


def _head(task: TaskRecord) -> Iterator[tuple[str, str]]:
    yield "task", task.task_id
    yield "search", task.search
    yield "key", task.key
    yield "state", task.state.value + (", cancel requested" if task.cancel_requested else "")
    if task.state is TaskState.LEASED:
        yield "held by", f"{task.worker_id}, epoch {task.epoch}, {span(task.lease_left_ms)} of the lease left"
    elif task.worker_id:
        yield "last held by", f"{task.worker_id}, epoch {task.epoch}"
    if task.state is TaskState.SCHEDULED:
        yield "queued in", span(task.scheduled_in_ms)
    yield "attempts", f"{task.attempts} of {task.max_attempts}"
    yield "losses", f"{task.losses} of {task.max_losses}"
    yield "out of memory", f"{task.out_of_memory} of {task.max_out_of_memory}" if task.out_of_memory else ""
    yield "by rule", ", ".join(f"{name} {count}" for name, count in sorted(task.rule_attempts.items()))
    yield "resumes", f"{task.resumes} from a checkpoint" if task.resumes else ""
    yield "priority", str(task.priority) if task.priority else ""
    yield "requires", _requirements(task.requirements)
    yield "submitted", _when(task.submitted_unix_ms)
    yield "leased", _when(task.leased_unix_ms)
    yield "ended", _when(task.ended_unix_ms)
    yield "duration", span(task.duration_seconds * 1000) if task.duration_seconds else ""
    if task.progress is not None:
        total = f" of {task.progress.total_steps}" if task.progress.total_steps else ""
        parts = (
            f"step {task.progress.step}{total}",
            _metrics(task.progress.metrics),
            ago(task.progress.reported_unix_ms),
        )
        yield "progress", ", ".join(filter(None, parts))
    if task.checkpoint is not None:
        size = f"{task.checkpoint.size_bytes / 1e6:.1f} MB"
        yield "checkpoint", f"step {task.checkpoint.step}, epoch {task.checkpoint.epoch}, {size}, {task.checkpoint.url}"
    yield "config", _config(task.config)
    if task.evaluator:
        yield "evaluator", f"{task.evaluator}{f', code {task.code}' if task.code else ''}"
    if task.trace:
        yield "trace", log_fields(task.trace).get("trace_id", "")
    yield "architecture", f"{len(task.architecture.encode())} bytes of JSON (--output json has it)"


def _print_attempt(record: AttemptRecord) -> None:
    took = f" after {span(record.duration_seconds * 1000)}" if record.duration_seconds else ""
    sys.stdout.write(f"  epoch {record.epoch}: {record.outcome} on {record.worker_id}{took}\n")
    print_pairs(
        [
            ("    leased", clock(record.leased_unix_ms)),
            ("    ended", clock(record.ended_unix_ms)),
            ("    steps", _steps(record)),
            ("    exit signal", _signal_name(record.exit_signal)),
            ("    exit code", str(record.exit_code) if record.exit_code else ""),
            ("    memory", _memory(record.memory)),
            ("    error", _error(record)),
        ]
    )
    if record.log_tail.strip():
        sys.stdout.write("    last output\n")
        for line in record.log_tail.rstrip().splitlines():
            sys.stdout.write(f"      | {printable(line)}\n")


def _steps(record: AttemptRecord) -> str:
    if not record.steps_start and not record.steps_end:
        return ""
    return f"{record.steps_start} to {record.steps_end}" + (", from a checkpoint" if record.steps_start else "")


def _error(record: AttemptRecord) -> str:
    if not record.error_class and not record.error_message:
        return ""
    return _indented(": ".join(filter(None, (record.error_class, record.error_message))), " " * 17)


def _memory(memory: MemoryReport | None) -> str:
    if memory is None:
        return ""
    named = (
        ("estimated", memory.estimated_bytes),
        ("limit", memory.limit_bytes),
        ("peak", memory.peak_bytes),
    )
    parts = [f"{name} {show_bytes(count)}" for name, count in named if count]
    if memory.batch_size:
        divided = f" in {memory.micro_batches} parts" if memory.micro_batches > 1 else ""
        parts.append(f"batches of {memory.batch_size}{divided}")
    return ", ".join(parts)


def _signal_name(number: int) -> str:
    if not number:
        return ""
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return str(number)


def _requirements(requirements: Requirements) -> str:
    parts = [f"{requirements.gpus} GPUs"] if requirements.gpus else []
    parts += [f"{show_bytes(requirements.memory_bytes)} of memory"] if requirements.memory_bytes else []
    parts += [f"{name}={value}" for name, value in sorted(requirements.labels.items())]
    return ", ".join(parts)


def _config(config: Config | None) -> str:
    if config is None:
        return ""
    named = {
        "num_epochs": config.num_epochs,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "dataset": config.dataset,
    }
    parts = [f"{name} {value}" for name, value in named.items() if value]
    parts += [f"{name}={value}" for name, value in sorted(config.extra.items())]
    return ", ".join(parts)


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.5g}" for name, value in sorted(metrics.items()))


def _when(unix_ms: int) -> str:
    return f"{clock(unix_ms)} ({ago(unix_ms)})" if unix_ms else ""


def _section(title: str) -> None:
    sys.stdout.write(f"\n{title}\n")


def _text(title: str, text: str) -> None:
    if text:
        sys.stdout.write(f"  {title}\n")
        for line in text.splitlines():
            sys.stdout.write(f"    {printable(line)}\n")


def _indented(text: str, indent: str) -> str:
    return ("\n" + indent).join(text.splitlines())
