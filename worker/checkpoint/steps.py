"""Checkpoints within a loop of steps, for evaluators that would otherwise write the same few lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenure.worker.evaluator import Context


class StepCheckpointer:
    """Saves when it is due, and hands over when the evaluation is to stop. Call :meth:`after` once a step is done.

    Args:
        context: The evaluation's.
        capture: Returns the state as it is now. It need not copy anything; it is called only when a save is made.

    Example:
        >>> steps = StepCheckpointer(context, lambda: {"step": step, "model": model.state_dict()})  # doctest: +SKIP
        >>> for step in range(first, last):  # doctest: +SKIP
        ...     train_on(batches[step])
        ...     steps.after(step + 1)
    """

    def __init__(self, context: Context, capture: Callable[[], Mapping[str, Any]]) -> None:
        self._context = context
        self._capture = capture
        self._saved: int | None = None

    def after(self, step: int, score: float | None = None) -> None:
        """``step`` steps are done. Cheap unless a save is made: call it as often as a state is worth keeping.

        Args:
            step: As for ``context.checkpoint.save``; rises from call to call.
            score: Higher is better; None if nothing was measured at this step.

        Raises:
            Stopped: The evaluation is to stop; its state is on storage. Let it through.
            InvalidInput: What ``capture`` returned can't be kept in a checkpoint.
        """
        from tenure.worker.evaluator import Stopped  # which exports this class

        checkpoint = self._context.checkpoint
        if self._context.should_stop:
            if self._saved != step:
                self.save(step, score, wait=True)
            checkpoint.wait()
            raise Stopped
        if checkpoint.due:
            self.save(step, score)

    def save(self, step: int, score: float | None = None, *, wait: bool = False) -> None:
        """Save now, due or not: at the end of an epoch with a new best score, say."""
        self._context.checkpoint.save(self._capture(), step=step, score=score, wait=wait)
        self._saved = step
