"""Where the jobs of a study run: in this process, or on the workers of a Dask cluster.

Workers share the study's folder with whoever started them: on one machine, or on a cluster's shared file system. What
is done lies there, so that a job whose worker was lost goes on elsewhere from its last checkpoint.
"""

from __future__ import annotations

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from pydantic import Field

from micraframe.errors import ConfigError, MissingDependency
from micraframe.interfaces import Parameters
from micraframe.study.plan import Job
from micraframe.types import Progress

if TYPE_CHECKING:
    from distributed import Client, Future

Work = Callable[[Job, Progress], dict[str, str]]
"""Runs the cells of a job; returns the tracebacks of those that failed, by their names."""

LOST = 3
"""So many workers may be lost in a job until it is given up: then it is the job that kills them."""

CONNECT = 10.0
"""Seconds that a scheduler has to answer."""

_LOOK = 2.0
"""Seconds after which to look whether workers have come or gone."""


class Executor(ABC):
    """Runs jobs."""

    @abstractmethod
    def run(self, jobs: Sequence[Job], work: Work, progress: Progress) -> Iterator[tuple[Job, dict[str, str]]]:
        """Yield each job when it is done, in whatever order, with what failed in it."""


@final
class Local(Executor):
    """One job after the other, in this process."""

    def run(self, jobs: Sequence[Job], work: Work, progress: Progress) -> Iterator[tuple[Job, dict[str, str]]]:
        """Yield each job when it is done, in order."""
        for job in jobs:
            yield job, work(job, progress)


class Slurm(Parameters):
    """Of what SLURM gives to each worker; `dask-jobqueue` writes the job script."""

    workers: int = Field(1, ge=1, description="Number of jobs that SLURM is asked for, each with one worker.")
    queue: str | None = Field(None, description="Partition.")
    account: str | None = Field(None, description="Account.")
    cores: int = Field(4, ge=1, description="Cores of a worker.")
    memory: str = Field("16GB", description="Memory of a worker.")
    walltime: str = Field(
        "04:00:00",
        pattern=r"^(\d+-\d+(:\d+){0,2}|\d+(:\d+){0,2})$",
        description="When SLURM ends a worker, as sbatch has it; its job goes on in another.",
    )
    interface: str | None = Field(None, description="Network by which workers are reached, such as ib0.")
    directives: list[str] = Field([], description="Further lines of #SBATCH, such as --gres=gpu:1.")
    prologue: list[str] = Field([], description="What the script does first, such as: module load cuda.")
    python: str | None = Field(None, description="The workers' Python; none: the one that runs the study.")


@final
class Dask(Executor):
    """Jobs on the workers of a Dask cluster: local, at an address, or given by SLURM.

    Args:
        workers: Number of processes on this machine, if nothing else is named.
        scheduler: Address of a running scheduler, such as `tcp://10.0.0.1:8786`. Its workers' threads each run a job
            at a time; how many cores a job's arithmetic takes, their `OMP_NUM_THREADS` says.
        slurm: What to ask SLURM for.
        logs: The folder for what SLURM's jobs print.
    """

    def __init__(
        self,
        workers: int = 2,
        scheduler: str | None = None,
        slurm: Slurm | None = None,
        logs: Path = Path("slurm"),
    ) -> None:
        self._workers = workers
        self._scheduler = scheduler
        self._slurm = slurm
        self._logs = logs

    def run(self, jobs: Sequence[Job], work: Work, progress: Progress) -> Iterator[tuple[Job, dict[str, str]]]:
        """Yield each job when it is done, in the order in which they end.

        Raises:
            MissingDependency: If dask's packages are not installed.
            ConfigError: If no scheduler answers at the address, or SLURM does not take the jobs.
            ConnectionError: If the scheduler is lost.
        """
        if not jobs:
            return
        with self._client() as client:
            from distributed import KilledWorker

            suspects = []
            for job, future in self._together(client, jobs, work, progress):
                error = future.exception()
                if isinstance(error, KilledWorker):
                    # Dask blames all jobs that the lost workers had. Which one it was shows when each is alone.
                    suspects.append(job)
                    continue
                progress.advance(str(job[0]), len(job), len(job))
                yield job, _failures(job, future, error)
            for suspect in suspects:
                for job, future in self._together(client, [suspect], work, progress):
                    progress.advance(str(job[0]), len(job), len(job))
                    yield job, _failures(job, future, future.exception())

    def _together(
        self, client: Client, jobs: Sequence[Job], work: Work, progress: Progress
    ) -> Iterator[tuple[Job, Future]]:
        """Run jobs, no more at a time than workers have threads, so that a lost worker had the job that it ran only."""
        from distributed import wait

        waiting = deque(jobs)
        running: dict[Future, Job] = {}
        threads = -1
        while waiting or running:
            done: set[Future] = set()
            try:
                before, threads = threads, sum(client.nthreads().values())
                if not threads and before:
                    progress.advance("waiting for workers", 0, 1)
                while waiting and len(running) < max(threads, 1):
                    job = waiting.popleft()
                    # Not by the cells alone: another study on the same scheduler may have the same ones elsewhere.
                    key = f"{job[0]}-{uuid.uuid4().hex}"
                    running[client.submit(_on_worker, work, job, self._threads(), key=key, pure=False)] = job
                done = wait(list(running), timeout=_LOOK, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                pass
            except (CancelledError, OSError) as error:
                raise ConnectionError(
                    "the Dask scheduler is lost; the same command goes on where this one stopped"
                ) from error
            for future in [future for future in running if future in done]:
                yield running.pop(future), future

    @contextmanager
    def _client(self) -> Iterator[Client]:
        try:
            import dask
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise MissingDependency(f"{error}; dask is wanted: pip install 'micraframe[dask]'") from error
        with dask.config.set({"distributed.scheduler.allowed-failures": LOST}):
            if self._scheduler:
                try:
                    client = Client(self._scheduler, timeout=CONNECT)
                except (OSError, ValueError, TypeError) as error:
                    raise ConfigError(f"no Dask scheduler answers at {self._scheduler!r}: {error}") from error
                with client:
                    yield client
                return
            cluster: Any
            if self._slurm:
                cluster = slurm_cluster(self._slurm, self._logs)
            else:
                cluster = LocalCluster(
                    n_workers=self._workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # any free port: a second study must not warn of the first
                    # Results are on the disk: what a worker's memory holds is its job's, which Dask cannot lessen.
                    memory_limit=None,
                )
            with cluster, Client(cluster) as client:
                if self._slurm:
                    _ask(cluster, self._slurm.workers)
                yield client

    def _threads(self) -> int | None:
        """Return how many threads a worker's arithmetic takes; None where the worker knows best."""
        if self._scheduler:
            return None
        if self._slurm:
            return self._slurm.cores
        return max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // self._workers))


def job_script(slurm: Slurm, logs: Path) -> str:
    """Return the script that SLURM would be given for a worker; nothing is started or written.

    Raises:
        MissingDependency: If dask-jobqueue is not installed.
    """
    script: str = (
        _jobqueue().SLURMCluster.job_cls("tcp://SCHEDULER:PORT", name="WORKER", **_asked(slurm, logs)).job_script()
    )
    return script


def slurm_cluster(slurm: Slurm, logs: Path) -> Any:
    """Return dask-jobqueue's cluster, of which no worker has been asked for yet.

    Args:
        slurm: What a worker gets.
        logs: The folder for what the jobs print.

    Raises:
        MissingDependency: If dask-jobqueue is not installed.
        ConfigError: If this machine has no `sbatch`.
    """
    cluster = _jobqueue().SLURMCluster
    if not shutil.which("sbatch"):
        raise ConfigError("there is no sbatch on this machine; start the study where SLURM takes jobs")
    logs.mkdir(parents=True, exist_ok=True)
    return cluster(**_asked(slurm, logs), scheduler_options={"dashboard_address": ":0"})


def seconds_of(walltime: str) -> int:
    """Return the seconds of a time as sbatch has it: `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M` or `D-H:M:S`."""
    days, dash, rest = walltime.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    # Without days, one or two numbers are minutes and seconds; with days, hours and minutes.
    hours, minutes, seconds = [*parts, 0, 0][:3] if dash or len(parts) == 3 else [0, *parts, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _jobqueue() -> Any:
    try:
        import dask_jobqueue
    except ImportError as error:
        raise MissingDependency(f"{error}; dask-jobqueue is wanted: pip install 'micraframe[dask]'") from error
    return dask_jobqueue


def _asked(slurm: Slurm, logs: Path) -> dict[str, Any]:
    """Return what dask-jobqueue is told."""
    # Numerical libraries read these when they are loaded; Dask sets them to 1 where nothing else does.
    pools = [f"export {name}={slurm.cores}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
    return {
        "queue": slurm.queue,
        "account": slurm.account,
        # One process with one thread of Dask's, and so one job at a time, whose arithmetic takes all the cores.
        "cores": 1,
        "processes": 1,
        "job_cpu": slurm.cores,
        "memory": slurm.memory,
        "walltime": slurm.walltime,
        "interface": slurm.interface,
        "job_extra_directives": [f"-o {logs.absolute() / 'worker-%j.log'}", *slurm.directives],
        "job_script_prologue": [*pools, *slurm.prologue],
        # A worker that leaves before SLURM ends it is none that its job has killed.
        "worker_extra_args": ["--lifetime", f"{seconds_of(slurm.walltime) * 95 // 100}s"],
        "python": slurm.python,
    }


def _ask(cluster: Any, workers: int) -> None:
    """Have SLURM asked for workers, now and whenever one is lost."""

    from distributed import Status

    async def settled() -> None:
        try:
            await cluster
        finally:
            for worker in cluster.workers.values():
                if worker.status == Status.created:  # refused; as such the cluster could not be closed
                    worker.status = Status.failed

    # Not by `scale`, which asks in the background, where SLURM's refusal is not heard.
    for _ in range(workers):
        cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        cluster.sync(settled)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"SLURM does not take the job: {reason}") from error
    cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)


def _failures(job: Job, future: Future, error: BaseException | None) -> dict[str, str]:
    if error is None:
        found: dict[str, str] = future.result()
        return found
    from distributed import KilledWorker

    # The work keeps its own failures to itself: this is the loss of workers, or workers that cannot do it.
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, KilledWorker):
        reason = (
            f"WorkerLost: {error.allowed_failures + 1} workers ended while they ran this, the last one at "
            f"{error.last_worker.address}; it may want more memory than there is"
        )
    return {str(cell): reason for cell in job}


def _on_worker(work: Work, job: Job, threads: int | None) -> dict[str, str]:
    if threads is not None:
        torch.set_num_threads(threads)
    return work(job, Progress())
