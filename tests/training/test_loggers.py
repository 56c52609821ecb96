from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from table_files import rows_of

from micraframe.cli import app
from micraframe.errors import ConfigError, MissingDependency
from micraframe.training.loggers import MlflowLogger, TensorBoardLogger, create_loggers
from micraframe.types import EpochLogger

CONFIGURATION = """
dataset: {name: modified-digits, params: {size: 64, counts: [1], train: 8, valid: 4, test: 1}}
method:
  name: micra-net
  params: {backbone: {name: unet-encoder, params: {widths: [2, 3]}}, training: {epochs: 2, batch_size: 4}}
"""
EPOCHS = [{"train_loss": 0.9, "accuracy a, b": 0.5}, {"train_loss": 0.7, "accuracy a, b": 0.75}]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*address: object) -> None:
        raise AssertionError(f"a logger opened a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        name: [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def mlflow_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    [run] = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    return {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def log_interrupted(logger: type, folder: Path) -> None:
    """Log two epochs, and the second one again, as a run does that was killed before its checkpoint."""
    first = logger()
    for epoch in (1, 2):
        first.log(folder, epoch, EPOCHS[epoch - 1])
    logger().log(folder, 2, EPOCHS[1])


def test_tensorboard_shows_each_epoch_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    log_interrupted(TensorBoardLogger, tmp_path)
    assert tensorboard_scalars(tmp_path) == {name: [(1, EPOCHS[0][name]), (2, EPOCHS[1][name])] for name in EPOCHS[0]}


def log_nested(logger: EpochLogger, folder: Path) -> list[Path]:
    """Log an epoch of each of two trainings with one logger, as methods do that train twice; return their folders."""
    folders = [folder / "teacher", folder / "student"]
    for each, numbers in zip(folders, EPOCHS, strict=True):
        each.mkdir()
        logger.log(each, 1, numbers)
    return folders


def test_tensorboard_keeps_trainings_apart(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    found = [tensorboard_scalars(folder) for folder in log_nested(TensorBoardLogger(), tmp_path)]
    assert found == [{name: [(1, value)] for name, value in numbers.items()} for numbers in EPOCHS]


@pytest.mark.filterwarnings("ignore")  # those of MLflow and SQLAlchemy about one another
def test_mlflow_keeps_trainings_apart(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    pytest.importorskip("alembic", reason="MLflow's database needs alembic")
    found = [mlflow_scalars(folder)["train_loss"] for folder in log_nested(MlflowLogger(), tmp_path)]
    assert found == [[(1, numbers["train_loss"])] for numbers in EPOCHS]


@pytest.mark.filterwarnings("ignore")  # those of MLflow and SQLAlchemy about one another
def test_mlflow_continues_its_run(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    pytest.importorskip("alembic", reason="MLflow's database needs alembic")
    log_interrupted(MlflowLogger, tmp_path)
    found = mlflow_scalars(tmp_path)
    assert set(found) == {"train_loss", "accuracy a_ b"}
    assert set(found["accuracy a_ b"]) == {(1, 0.5), (2, 0.75)}


def test_train_logs_what_is_in_its_own_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    (tmp_path / "train.yaml").write_text(CONFIGURATION + "loggers: [tensorboard]\n")
    app(["train", str(tmp_path / "train.yaml"), "--output", str(tmp_path / "run")], standalone_mode=False)
    rows = rows_of(tmp_path / "run" / "training" / "log.csv")
    assert len(rows) == 2
    found = tensorboard_scalars(tmp_path / "run" / "training")
    assert found == {
        name: [(int(row["epoch"]), float(row[name])) for row in rows] for name in rows[0] if name != "epoch"
    }


def test_without_loggers_nothing_is_imported_or_written(tmp_path: Path) -> None:
    assert create_loggers([]) == ()


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow")])
def test_a_logger_that_is_not_installed_is_refused_before_training(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    (tmp_path / "train.yaml").write_text(CONFIGURATION + f"loggers: [{name}]\n")
    with pytest.raises(MissingDependency, match=f"logger '{name}': .*pip install '\\.\\[loggers\\]'"):
        app(["train", str(tmp_path / "train.yaml"), "--output", str(tmp_path / "run")], standalone_mode=False)
    assert not (tmp_path / "run" / "training").exists()


def test_an_unknown_logger(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(CONFIGURATION + "loggers: [wandb]\n")
    with pytest.raises(ConfigError, match=r"train.yaml:\d+: loggers.0: expected 'tensorboard' or 'mlflow', got"):
        app(["train", str(tmp_path / "train.yaml"), "--output", str(tmp_path / "run")], standalone_mode=False)
