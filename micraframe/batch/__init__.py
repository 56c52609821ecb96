"""Work over many files, where one bad file does not stop the rest: prediction, evaluation, annotator agreement."""

from micraframe.batch.annotators import compare_annotators
from micraframe.batch.evaluate import evaluate_files
from micraframe.batch.predict import predict_files

__all__ = ["compare_annotators", "evaluate_files", "predict_files"]
