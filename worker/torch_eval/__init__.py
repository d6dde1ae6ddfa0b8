"""The built-in evaluator: MorphML graphs built as torch modules and trained. Only executors import it."""

from tenure.worker.torch_eval.builder import build_module, count_parameters

__all__ = ["build_module", "count_parameters"]
