"""Work over many files, which survives a bad one: prediction and its evaluation."""

from micraframe.batch.evaluate import evaluate_files
from micraframe.batch.predict import predict_files

__all__ = ["evaluate_files", "predict_files"]
