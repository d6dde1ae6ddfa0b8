"""The built-in evaluator: MorphML graphs built as torch modules and trained. Only executors import it."""

from tenure.worker.torch_eval.builder import build_module, count_parameters
from tenure.worker.torch_eval.datasets import Dataset, MapDataset
from tenure.worker.torch_eval.trainer import evaluate

__all__ = ["Dataset", "MapDataset", "build_module", "count_parameters", "evaluate"]
