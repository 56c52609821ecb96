"""Work over many files, which survives a bad one: prediction, its evaluation, agreement of annotators."""

from micraframe.batch.agreement import compare_annotators
from micraframe.batch.evaluate import evaluate_files
from micraframe.batch.predict import predict_files

__all__ = ["compare_annotators", "evaluate_files", "predict_files"]
