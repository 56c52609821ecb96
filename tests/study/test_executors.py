"""Studies on Dask workers give the results of one process, whichever workers are lost on the way."""

from __future__ import annotations

import functools
import importlib
import logging
import multiprocessing
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from micraframe import catalog
from micraframe.config import Choice, ComparedMethod, Study
from micraframe.errors import ConfigError, MissingDependency
from micraframe.runtime.files import write_text
from micraframe.runtime.locks import exclusive
from micraframe.study import StudyFolder, executors, plan, run_study
from micraframe.study.executors import (
    Dask,
    Slurm,
    gpu_of,
    job_script,
    on_worker,
    request_workers,
    seconds_of,
    slurm_cluster,
)
from micraframe.study.job import run_job
from micraframe.study.run import Outcome
from micraframe.types import Progress

PATIENCE = 240
"""Seconds after which what should have happened is taken never to happen."""

TABLES = ("rows.csv", "summary.csv", "costs.csv", "statistics.csv")

METHODS = """
import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any, final

from micraframe import registry
from micraframe.interfaces import Method
from micraframe.parameters import Parameters
from micraframe.types import Annotation, Progress


class Waits(Progress):
    def __init__(self, marker):
        self.marker = marker

    def advance(self, label, done, total, numbers=()):
        if label.startswith("resuming"):
            return
        with self.marker.with_suffix(".steps").open("a") as stream:
            stream.write(f"{done}\\n")
        if done == 8 and not self.marker.exists():
            written = self.marker.with_suffix(".new")
            written.write_text(str(os.getpid()))
            written.replace(self.marker)
            time.sleep(240)


@final
class Lingering(Method["Lingering.Params"]):
    '''micra-net, which the first time waits in its third epoch for its process to be killed.'''

    class Params(Parameters):
        marker: str
        net: dict[str, Any]

    learns_from = frozenset({Annotation.LABELS})

    def _net(self):
        return registry.build("method", "micra-net", **self.params.net)

    def fit(self, train, valid, info, context):
        waits = Waits(Path(self.params.marker))
        return self._net().fit(train, valid, info, dataclasses.replace(context, progress=waits))

    def restore(self, state, info, device):
        return self._net().restore(state, info, device)


@final
class Lethal(Method):
    '''Kills every process that it is trained in.'''

    learns_from = frozenset({Annotation.LABELS})

    def fit(self, train, valid, info, context):
        os.kill(os.getpid(), signal.SIGKILL)

    def restore(self, state, info, device):
        raise RuntimeError


def threads(job, progress):
    '''Reports how many threads a job would compute with.'''
    import torch

    return {"torch": str(torch.get_num_threads()), "environment": os.environ["OMP_NUM_THREADS"]}
"""
ENTRY = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 2
@hookimpl
def micraframe_components():
    return [Component("method", name.lower(), f"workers_methods:{name}", name) for name in ("Lingering", "Lethal")]
"""

NET = {
    "backbone": {"name": "unet-encoder", "params": {"widths": [2, 4]}},
    "dropout": 0,
    "training": {"epochs": 5, "batch_size": 4},
}


def study(*methods: ComparedMethod) -> Study:
    params = {"size": 32, "counts": [1], "digits": 20, "train": 12, "valid": 4, "test": 4}
    return Study(
        datasets=[Choice(name="modified-digits", params=params)],
        methods=list(methods),
        tuning_images=2,
        ceilings=False,
        pictures=0,
        device="cpu",
        precision="float32",
    )


def method(name: str, **params: Any) -> ComparedMethod:
    head = Choice(name="semantic", params={"presence_threshold": 0.2})
    return ComparedMethod(method=Choice(name=name, params=params), head=head, label=name)


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def run_there(chosen: Study, folder: Path, executor: Dask, progress: Progress | None = None) -> Outcome:
    """Run a study, and fail if it does not end."""
    found: list[Outcome | Exception] = []

    def run() -> None:
        try:
            found.append(run_study(chosen, folder, progress, executor))
        except Exception as error:  # whatever it is, it is raised below
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert found, "the study hangs"
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def advance(self, label: str, done: int, total: int, numbers: object = ()) -> None:
        self.lines.append(f"{label} {done}/{total}")


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the methods above where workers find them too: before any of these is started."""
    site = tmp_path_factory.mktemp("site-packages")
    (site / "workers_plugin.py").write_text(textwrap.dedent(ENTRY))
    (site / "workers_methods.py").write_text(METHODS)
    metadata = site / "workers_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: workers_plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[micraframe]\nworkers_plugin = workers_plugin\n")
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    # Workers are forked from a process that has imported what takes long, which Dask's tests do too.
    context = multiprocessing.get_context("forkserver")
    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
    ):
        patch.syspath_prepend(site)
        patch.setenv("OMP_NUM_THREADS", "1")
        context.set_forkserver_preload(["distributed", "micraframe.study.run", "micraframe.micranet"])
        forkserver.ensure_running()
        importlib.invalidate_caches()
        catalog.cache_clear()
        yield
    catalog.cache_clear()
    for name in ("workers_plugin", "workers_methods"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def address(methods: None) -> Iterator[str]:
    """Return the address of a scheduler with two workers, each a process with one thread."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    # One loss is borne, the second gives a job up: as with LOST, but fewer processes have to be started.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            memory_limit=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield cluster.scheduler_address


def kill_who_lingers(marker: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not marker.exists():
        if time.monotonic() > end:
            return
        time.sleep(0.01)
    os.kill(int(marker.read_text()), signal.SIGKILL)


def test_a_worker_killed_in_mid_training_is_made_good(tmp_path: Path, address: str) -> None:
    marker = tmp_path / "marker"
    chosen = study(method("lingering", marker=str(marker), net=NET), method("intensity-otsu"))
    killer = threading.Thread(target=kill_who_lingers, args=[marker])
    killer.start()
    progress = Lines()
    outcome = run_there(chosen, tmp_path / "dask", Dask(scheduler=address), progress)
    killer.join(PATIENCE)
    assert not outcome.failures
    # Three steps are an epoch: after the checkpoint of the second one, the seventh is the first that was done again.
    steps = [int(line) for line in marker.with_suffix(".steps").read_text().split()]
    assert steps == [*range(1, 9), *range(7, 16), 15]
    named = [line for line in progress.lines if line.startswith("modified-digits")]
    assert sorted(named) == [
        "modified-digits / image-level / intensity-otsu / seed 0 1/1",
        "modified-digits / image-level / lingering / seed 0 1/1",
    ]

    assert not run_study(chosen, tmp_path / "here").failures
    assert tables(tmp_path / "dask") == tables(tmp_path / "here")


def test_a_job_that_kills_its_workers_is_given_up_and_the_rest_goes_on(tmp_path: Path, address: str) -> None:
    innocent = [method("intensity-otsu"), method("centre-blob"), method("random-map")]
    outcome = run_there(study(method("lethal"), *innocent), tmp_path, Dask(scheduler=address))
    (failed,) = outcome.failures
    assert failed == "modified-digits / image-level / lethal / seed 0"
    assert "WorkerLost: 2 workers ended while they executed this" in outcome.failures[failed]
    assert {row.method for row in outcome.summary} == {"intensity-otsu", "centre-blob", "random-map"}


def test_a_job_computes_with_the_threads_it_is_given(address: str) -> None:
    import distributed
    import workers_methods  # type: ignore[import-not-found]

    (job,) = [(run,) for run in plan(study(method("intensity-otsu")))]
    with distributed.Client(address) as client:
        for threads in (2, 3, 1):
            future = client.submit(on_worker, workers_methods.threads, job, threads, (), pure=False)
            assert future.result(timeout=PATIENCE) == {"torch": str(threads), "environment": "1"}


def test_workers_of_one_machine_take_its_gpus_in_turn() -> None:
    workers = ["tcp://a:3", "tcp://b:1", "tcp://a:1", "tcp://a:2", "tcp://[::1]:7"]
    assert [gpu_of(worker, workers, 2) for worker in workers] == [0, 0, 0, 1, 0]
    assert [gpu_of(worker, workers, 4) for worker in workers] == [2, 0, 0, 1, 0]
    # One that came after the job was submitted.
    assert gpu_of("tcp://a:4", workers, 4) == 3
    assert gpu_of("tcp://a:1", workers, 1) is None
    assert gpu_of("tcp://a:1", workers, 0) is None


def test_what_is_submitted_can_be_pickled(tmp_path: Path) -> None:
    (run,) = plan(study(method("centre-blob")))
    work = functools.partial(run_job, study=study(method("centre-blob")), folder=StudyFolder(tmp_path))
    assert pickle.loads(pickle.dumps((work, (run,), 1, ("tcp://a:1",))))[1] == (run,)


def test_workers_of_its_own(tmp_path: Path, methods: None) -> None:
    pytest.importorskip("distributed")
    chosen = study(method("intensity-otsu"), method("centre-blob"))
    assert not run_there(chosen, tmp_path / "dask", Dask(workers=1)).failures
    assert not run_study(chosen, tmp_path / "here").failures
    assert tables(tmp_path / "dask") == tables(tmp_path / "here")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://here"])
def test_an_address_where_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "CONNECT", 0.2)
    with pytest.raises(ConfigError, match=f"expected a Dask scheduler at '{address}', got no answer"):
        run_there(study(method("centre-blob")), tmp_path, Dask(scheduler=address))


@pytest.mark.parametrize(("asked", "module"), [(None, "distributed"), (Slurm(), "dask_jobqueue")])
def test_what_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Slurm | None, module: str
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"its extra: pip install '\.\[dask\]'"):
        run_study(study(method("centre-blob")), tmp_path, executor=Dask(slurm=asked))


def test_nothing_to_do_asks_for_no_workers(tmp_path: Path) -> None:
    chosen = study(method("centre-blob"))
    run_study(chosen, tmp_path)
    assert not run_study(chosen, tmp_path, executor=Dask(scheduler="tcp://127.0.0.1:9")).failures


def test_a_scheduler_without_workers_that_is_lost(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    progress = Lines()

    def close() -> None:
        end = time.monotonic() + PATIENCE
        while "waiting for workers 0/1" not in progress.lines and time.monotonic() < end:
            time.sleep(0.01)
        cluster.close(timeout=PATIENCE)

    with distributed.LocalCluster(
        n_workers=0, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
    ) as cluster:
        closing = threading.Thread(target=close)
        closing.start()
        with pytest.raises(ConnectionError, match="the connection to the Dask scheduler is lost"):
            run_there(study(method("centre-blob")), tmp_path, Dask(scheduler=cluster.scheduler_address), progress)
        closing.join(PATIENCE)


def test_two_studies_in_one_folder_take_turns_at_a_job(tmp_path: Path) -> None:
    chosen = study(method("centre-blob"))
    (run,) = plan(chosen)
    progress = Lines()
    other = threading.Thread(target=run_study, args=[chosen, tmp_path, progress])
    with exclusive(tmp_path / "training" / f"{run.training_key}.lock", lambda: None):
        other.start()
        end = time.monotonic() + PATIENCE
        while f"{run}: waiting for another process 0/1" not in progress.lines and time.monotonic() < end:
            time.sleep(0.01)
        assert not (tmp_path / "runs").exists()
    other.join(PATIENCE)
    assert progress.lines.count("study 1/1") == 1
    assert (tmp_path / "rows.csv").exists()


SLURM = Slurm(
    workers=3,
    queue="gpu",
    account="lab",
    cores=8,
    memory="32GB",
    walltime="1-00:00:00",
    directives=["--gres=gpu:1"],
    prologue=["module load cuda"],
    python="/opt/env/bin/python",
)


def test_the_job_script(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    from distributed.cli.dask_worker import main as worker

    lines = [line for line in job_script(SLURM, tmp_path / "logs").splitlines() if line]
    assert not (tmp_path / "logs").exists()
    *script, command = lines
    assert script == [
        "#!/usr/bin/env bash",
        "#SBATCH -J dask-worker",
        "#SBATCH -p gpu",
        "#SBATCH -A lab",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=30G",
        "#SBATCH -t 1-00:00:00",
        f"#SBATCH -o {tmp_path / 'logs'}/worker-%j.log",
        "#SBATCH --gres=gpu:1",
        "export OMP_NUM_THREADS=8",
        "export MKL_NUM_THREADS=8",
        "export OPENBLAS_NUM_THREADS=8",
        "module load cuda",
    ]
    python, *words = shlex.split(command)
    assert python == "/opt/env/bin/python"
    assert words[:2] == ["-m", "distributed.cli.dask_worker"]
    # As Dask itself reads it: one process, with one thread, that leaves before SLURM ends it.
    options = worker.make_context("dask worker", words[2:]).params
    assert options["scheduler"] == "tcp://SCHEDULER:PORT"
    assert (options["n_workers"], options["nthreads"], options["nanny"]) == (None, 1, True)
    assert options["memory_limit"] == "29.80GiB"
    assert options["lifetime"] == f"{24 * 3600 * 95 // 100}s"


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [("30", 1800), ("30:10", 1810), ("4:00:00", 14400), ("1-2", 93600), ("1-2:30", 95400), ("1-2:30:05", 95405)],
)
def test_walltimes_are_read_as_sbatch_reads_them(walltime: str, seconds: int) -> None:
    assert seconds_of(Slurm(walltime=walltime).walltime) == seconds


def test_without_sbatch_slurm_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="expected sbatch on this machine, got none"):
        slurm_cluster(SLURM, tmp_path / "logs")


SBATCH = """#!/bin/sh
# Takes a job as SLURM does, and keeps it.
cp "$1" "{folder}/job-$$"
{answer}
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[functools.partial[None]]:
    """Return a function that puts commands of SLURM's names on the path."""
    pytest.importorskip("dask_jobqueue")
    commands = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")

    def install(answer: str) -> None:
        write_text(commands / "sbatch", SBATCH.format(folder=tmp_path, answer=answer))
        # A job that runs is a process group of its own.
        write_text(commands / "scancel", f'#!/bin/sh\necho "$1" >> "{tmp_path}/cancelled"\nkill -9 -- "-$1" || true\n')
        for name in ("sbatch", "scancel"):
            (commands / name).chmod(0o755)

    return install


def test_slurm_is_asked_for_as_many_jobs_and_they_are_cancelled_in_the_end(tmp_path: Path, slurm: Any) -> None:
    slurm('echo "Submitted batch job $$"')
    with slurm_cluster(SLURM, tmp_path / "logs") as cluster:
        request_workers(cluster, 3)
        scripts = list(tmp_path.glob("job-*"))
        assert len(scripts) == 3
        assert all(cluster.scheduler_address in script.read_text() for script in scripts)
    assert len((tmp_path / "cancelled").read_text().split()) == 3


def test_for_a_worker_that_slurm_has_ended_another_is_asked(tmp_path: Path, slurm: Any) -> None:
    import dask
    import distributed

    # The copy is run, as by SLURM: the file that was submitted is deleted as soon as sbatch has answered.
    slurm(
        f'setsid bash "{tmp_path}/job-$$" > /dev/null 2>&1 &\n'
        f'echo "Submitted batch job $!" | tee -a "{tmp_path}/submitted"'
    )
    end = time.monotonic() + PATIENCE
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "0.1s"}),
        slurm_cluster(Slurm(cores=1, memory="2GB"), tmp_path / "logs") as cluster,
        distributed.Client(cluster) as client,
    ):
        request_workers(cluster, 1)
        client.wait_for_workers(1, timeout=PATIENCE)
        (job,) = [int(line.split()[-1]) for line in (tmp_path / "submitted").read_text().splitlines()]
        os.killpg(job, signal.SIGKILL)
        while len(list(tmp_path.glob("job-*"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert len(list(tmp_path.glob("job-*"))) == 2


def test_what_slurm_refuses_is_said(tmp_path: Path, slurm: Any) -> None:
    slurm('echo "sbatch: error: invalid partition specified: gpu" >&2; exit 1')
    with pytest.raises(ConfigError, match="SLURM refuses the job: .*invalid partition specified: gpu"):
        run_there(study(method("centre-blob")), tmp_path / "study", Dask(slurm=SLURM, logs=tmp_path))


def no_slurm() -> str:
    """Return why this machine has no SLURM that takes jobs: its commands can be there without one."""
    if not shutil.which("sbatch") or not shutil.which("sinfo"):
        return "sbatch or sinfo is not there"
    try:
        asked = subprocess.run(["sinfo", "--noheader"], check=False, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "sinfo does not answer within 20 s"
    said = asked.stderr.strip().splitlines()
    return f"sinfo says: {said[-1] if said else 'nothing'}" if asked.returncode or not asked.stdout.strip() else ""


def test_on_slurm() -> None:
    """Needs a folder that SLURM's nodes see too: the one that it runs in, or MICRAFRAME_SLURM_FOLDER.

    Its nodes are of this machine's kind: another's arithmetic may end in other last digits.
    """
    import tempfile

    import torch

    from micraframe import config

    if reason := no_slurm():
        pytest.skip(f"this machine has no SLURM: {reason}")
    smoke = Path(__file__).parents[2] / "benchmarks" / "studies" / "smoke.yaml"
    shared = os.environ.get("MICRAFRAME_SLURM_FOLDER", str(Path.cwd()))
    asked = Slurm(workers=2, cores=1, memory="4GB", walltime="00:30:00", queue=os.environ.get("MICRAFRAME_SLURM_QUEUE"))
    with tempfile.TemporaryDirectory(dir=shared, prefix="slurm-test-") as name:
        folder = Path(name)
        chosen = config.read(smoke, Study)
        assert not run_study(
            chosen, folder / "slurm", executor=Dask(slurm=asked, logs=folder / "slurm" / "slurm")
        ).failures
        assert list((folder / "slurm" / "slurm").glob("worker-*.log"))
        threads = torch.get_num_threads()
        torch.set_num_threads(asked.cores)
        try:
            assert not run_study(chosen, folder / "here").failures
        finally:
            torch.set_num_threads(threads)
        assert tables(folder / "slurm") == tables(folder / "here")
