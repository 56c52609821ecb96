"""Loggers of epochs for TensorBoard and MLflow: local files only, and off unless a configuration names them.

tensorboard --logdir OUTPUT
mlflow ui --backend-store-uri sqlite:///OUTPUT/training/mlflow.db
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, final

from micraframe.errors import MissingDependency
from micraframe.types import EpochLogger, LoggerName

_MLFLOW_REFUSES = re.compile(r"[^\w.\- :/]")


@final
class TensorBoardLogger(EpochLogger):
    """Writes event files to the folder `tensorboard`.

    Raises:
        MissingDependency: If TensorBoard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard", error) from error
        self._create = SummaryWriter
        self._writers: dict[Path, Any] = {}

    def log(self, folder: Path, epoch: int, numbers: Mapping[str, float]) -> None:
        """Record an epoch; drop this and later epochs of an interrupted training that were recorded before."""
        if folder not in self._writers:
            self._writers[folder] = self._create(str(folder / "tensorboard"), purge_step=epoch)
        for name, value in numbers.items():
            self._writers[folder].add_scalar(name, value, epoch)
        self._writers[folder].flush()


@final
class MlflowLogger(EpochLogger):
    """Writes a run to the SQLite database `mlflow.db`, even if the environment names a tracking server.

    Raises:
        MissingDependency: If MLflow is not installed.
    """

    def __init__(self) -> None:
        # Before the import, which would start a thread that reports to MLflow's makers.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        try:
            import alembic  # noqa: F401  # MLflow imports it when it opens a database
            import sqlalchemy  # noqa: F401  # as above
            from mlflow import MlflowClient
            from mlflow.entities import Metric
        except ImportError as error:
            raise _missing("mlflow", error) from error
        self._open, self._metric = MlflowClient, Metric
        self._runs: dict[Path, tuple[Any, str]] = {}

    def log(self, folder: Path, epoch: int, numbers: Mapping[str, float]) -> None:
        """Record an epoch of the database's only run."""
        if folder not in self._runs:
            client = self._open(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
            runs = client.search_runs(["0"])
            run = runs[0] if runs else client.create_run("0", run_name=folder.parent.name)
            self._runs[folder] = client, run.info.run_id
        client, run_id = self._runs[folder]
        now = int(time.time() * 1000)
        metrics = [self._metric(_MLFLOW_REFUSES.sub("_", name), value, now, epoch) for name, value in numbers.items()]
        client.log_batch(run_id, metrics)
        # After every epoch: any of them may be the last.
        client.set_terminated(run_id)


_LOGGERS: Final[Mapping[LoggerName, type[TensorBoardLogger | MlflowLogger]]] = {
    "tensorboard": TensorBoardLogger,
    "mlflow": MlflowLogger,
}


def create_loggers(names: Iterable[LoggerName]) -> tuple[EpochLogger, ...]:
    """Return new loggers.

    Raises:
        MissingDependency: If what one needs is not installed.
    """
    return tuple(_LOGGERS[name]() for name in dict.fromkeys(names))


def _missing(name: str, error: ImportError) -> MissingDependency:
    return MissingDependency(f"logger {name!r}: {error}; install micraframe with its extra: pip install '.[loggers]'")
