"""Where the jobs of a study are executed: in this process, or on the workers of a Dask cluster.

Workers share the study's folder with the process that started them: on one machine, or on a cluster's shared file
system. Results are there, so a job whose worker was lost continues on another one from its last checkpoint.
"""

from __future__ import annotations

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

import torch
from pydantic import Field

from micraframe.errors import ConfigError, MissingDependency
from micraframe.parameters import Parameters
from micraframe.runtime.memory import reuse_freed_memory
from micraframe.study.plan import Job
from micraframe.study.processes import Processes
from micraframe.types import Progress

if TYPE_CHECKING:
    from distributed import Client, Future

LOST = 3
"""How many workers may be lost with a job before it is given up: then the job itself ends them."""

CONNECT = 10.0
"""Seconds within which a scheduler must answer."""

_LOOK = 2.0
"""Seconds between looks for workers that came or went."""


class JobFunction(Protocol):
    """Executes the runs of a job; returns the tracebacks of those that failed, by name. It can be pickled."""

    def __call__(self, job: Job, progress: Progress, processes: Processes | None = None) -> dict[str, str]:
        """Execute a job, perhaps together with other processes of the same `torchrun`."""


class Executor(ABC):
    """Executes jobs."""

    @property
    def threads(self) -> int | None:
        """Number of threads that a job computes with, which is part of its key; None: as many as this process has."""
        return None

    @abstractmethod
    def run(self, jobs: Sequence[Job], work: JobFunction, progress: Progress) -> Iterator[tuple[Job, dict[str, str]]]:
        """Yield each job when it is done, in any order, with its failures."""


@final
class Local(Executor):
    """One job after the other, in this process.

    Args:
        processes: The processes of the same `torchrun`, which train together.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        self._processes = processes

    def run(self, jobs: Sequence[Job], work: JobFunction, progress: Progress) -> Iterator[tuple[Job, dict[str, str]]]:
        """Yield each job when it is done, in order."""
        for job in jobs:
            yield job, work(job, progress, self._processes)


class Slurm(Parameters):
    """What to request from SLURM for each worker; `dask-jobqueue` writes the job script."""

    workers: int = Field(1, ge=1, description="Number of SLURM jobs, each with one worker.")
    queue: str | None = Field(None, description="Partition.")
    account: str | None = Field(None, description="Account.")
    cores: int = Field(4, ge=1, description="Cores of a worker.")
    memory: str = Field("16GB", description="Memory of a worker.")
    walltime: str = Field(
        "04:00:00",
        pattern=r"^(\d+-\d+(:\d+){0,2}|\d+(:\d+){0,2})$",
        description="Time limit of a worker, in sbatch's notation; its job continues on another one.",
    )
    interface: str | None = Field(None, description="Network interface of the workers, such as ib0.")
    directives: list[str] = Field([], description="Further #SBATCH directives, such as --gres=gpu:1.")
    prologue: list[str] = Field([], description="Commands to run first, such as: module load cuda.")
    python: str | None = Field(None, description="The workers' Python; null: the one that runs the study.")


@final
class Dask(Executor):
    """Jobs on the workers of a Dask cluster: local, at an address, or started by SLURM.

    Workers on one machine each use their own GPU, in turn.

    Args:
        workers: Number of processes on this machine, if there is neither scheduler nor SLURM.
        scheduler: Address of a running scheduler, such as `tcp://10.0.0.1:8786`. Each thread of its workers executes
            one job at a time; their `OMP_NUM_THREADS` sets how many cores a job uses.
        slurm: What to request from SLURM.
        logs: The folder for the output of SLURM's jobs.
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

    def run(self, jobs: Sequence[Job], work: JobFunction, progress: Progress) -> Iterator[tuple[Job, dict[str, str]]]:
        """Yield each job when it is done, in the order of completion.

        Raises:
            MissingDependency: If dask's packages are not installed.
            ConfigError: If no scheduler answers at the address, or SLURM refuses the jobs.
            ConnectionError: If the connection to the scheduler is lost.
        """
        if not jobs:
            return
        with self._client() as client:
            from distributed import KilledWorker

            suspects = []
            for job, future in self._together(client, jobs, work, progress):
                error = future.exception()
                if isinstance(error, KilledWorker):
                    # Dask blames all jobs that the lost workers had. Executed alone, the guilty one shows.
                    suspects.append(job)
                    continue
                progress.advance(str(job[0]), len(job), len(job))
                yield job, _failures(job, future, error)
            for suspect in suspects:
                for job, future in self._together(client, [suspect], work, progress):
                    progress.advance(str(job[0]), len(job), len(job))
                    yield job, _failures(job, future, future.exception())

    def _together(
        self, client: Client, jobs: Sequence[Job], work: JobFunction, progress: Progress
    ) -> Iterator[tuple[Job, Future]]:
        """Execute jobs, at most as many at a time as workers have threads: a lost worker takes only its own with it."""
        from distributed import wait

        waiting = deque(jobs)
        running: dict[Future, Job] = {}
        threads = -1
        while waiting or running:
            done: set[Future] = set()
            try:
                workers = client.nthreads()
                before, threads = threads, sum(workers.values())
                if not threads and before:
                    progress.advance("waiting for workers", 0, 1)
                while waiting and len(running) < max(threads, 1):
                    job = waiting.popleft()
                    # Unique: another study on the same scheduler may have the same runs in another folder.
                    key = f"{job[0]}-{uuid.uuid4().hex}"
                    arguments = (work, job, self.threads, tuple(workers))
                    running[client.submit(on_worker, *arguments, key=key, pure=False)] = job
                done = wait(list(running), timeout=_LOOK, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                pass
            except (CancelledError, OSError) as error:
                raise ConnectionError(
                    "the connection to the Dask scheduler is lost; run the same command again to continue"
                ) from error
            for future in [future for future in running if future in done]:
                yield running.pop(future), future

    @contextmanager
    def _client(self) -> Iterator[Client]:
        try:
            import dask
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise MissingDependency(f"{error}; install micraframe with its extra: pip install '.[dask]'") from error
        with dask.config.set({"distributed.scheduler.allowed-failures": LOST}):
            if self._scheduler:
                try:
                    client = Client(self._scheduler, timeout=CONNECT)
                except (OSError, ValueError, TypeError) as error:
                    raise ConfigError(
                        f"expected a Dask scheduler at {self._scheduler!r}, got no answer ({error}); start one, or "
                        "correct --scheduler"
                    ) from error
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
                    dashboard_address="127.0.0.1:0",  # any free port: a second study must not warn about the first
                    # Results are on disk: a worker's memory is its job's, and Dask cannot reduce it.
                    memory_limit=None,
                )
            with cluster, Client(cluster) as client:
                if self._slurm:
                    request_workers(cluster, self._slurm.workers)
                yield client

    @property
    def threads(self) -> int | None:
        """How many threads a worker computes with; None where the worker decides."""
        if self._scheduler:
            return None
        if self._slurm:
            return self._slurm.cores
        return max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // self._workers))


def job_script(slurm: Slurm, logs: Path) -> str:
    """Return the job script of a worker; nothing is started or written.

    Raises:
        MissingDependency: If dask-jobqueue is not installed.
    """
    script: str = (
        _jobqueue().SLURMCluster.job_cls("tcp://SCHEDULER:PORT", name="WORKER", **_asked(slurm, logs)).job_script()
    )
    return script


def slurm_cluster(slurm: Slurm, logs: Path) -> Any:
    """Return dask-jobqueue's cluster, before any worker is requested.

    Args:
        slurm: What a worker gets.
        logs: The folder for the output of the jobs.

    Raises:
        MissingDependency: If dask-jobqueue is not installed.
        ConfigError: If this machine has no `sbatch`.
    """
    cluster = _jobqueue().SLURMCluster
    if not shutil.which("sbatch"):
        raise ConfigError("expected sbatch on this machine, got none; start the study where SLURM accepts jobs")
    logs.mkdir(parents=True, exist_ok=True)
    return cluster(**_asked(slurm, logs), scheduler_options={"dashboard_address": ":0"})


def seconds_of(walltime: str) -> int:
    """Return the seconds of a time in sbatch's notation: `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M` or `D-H:M:S`."""
    days, dash, rest = walltime.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    # Without days, one or two numbers are minutes and seconds; with days, hours and minutes.
    hours, minutes, seconds = [*parts, 0, 0][:3] if dash or len(parts) == 3 else [0, *parts, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _jobqueue() -> Any:
    try:
        import dask_jobqueue
    except ImportError as error:
        raise MissingDependency(f"{error}; install micraframe with its extra: pip install '.[dask]'") from error
    return dask_jobqueue


def _asked(slurm: Slurm, logs: Path) -> dict[str, Any]:
    """Return the arguments of dask-jobqueue's cluster."""
    # Numerical libraries read these when they are loaded; Dask sets them to 1 unless something else does.
    pools = [f"export {name}={slurm.cores}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
    return {
        "queue": slurm.queue,
        "account": slurm.account,
        # One process with one Dask thread executes one job at a time, which computes on all cores.
        "cores": 1,
        "processes": 1,
        "job_cpu": slurm.cores,
        "memory": slurm.memory,
        "walltime": slurm.walltime,
        "interface": slurm.interface,
        "job_extra_directives": [f"-o {logs.absolute() / 'worker-%j.log'}", *slurm.directives],
        "job_script_prologue": [*pools, *slurm.prologue],
        # A worker that leaves before SLURM ends it does not count as lost.
        "worker_extra_args": ["--lifetime", f"{seconds_of(slurm.walltime) * 95 // 100}s"],
        "python": slurm.python,
    }


def request_workers(cluster: Any, workers: int) -> None:
    """Request workers from SLURM, now and whenever one is lost."""
    from distributed import Status

    async def settled() -> None:
        try:
            await cluster
        finally:
            for worker in cluster.workers.values():
                if worker.status == Status.created:  # refused: with it, the cluster could not be closed
                    worker.status = Status.failed

    # Not by `scale`, which requests in the background, where SLURM's refusal is lost.
    for _ in range(workers):
        cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        cluster.sync(settled)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"SLURM refuses the job: {reason}; correct the file of --slurm") from error
    cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)


def _failures(job: Job, future: Future, error: BaseException | None) -> dict[str, str]:
    if error is None:
        found: dict[str, str] = future.result()
        return found
    from distributed import KilledWorker

    # Failures of runs are returned: this is the loss of workers, or workers that cannot execute the job.
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, KilledWorker):
        reason = (
            f"WorkerLost: {error.allowed_failures + 1} workers ended while they executed this, the last one at "
            f"{error.last_worker.address}; it may need more memory than there is"
        )
    return {str(run): reason for run in job}


def gpu_of(worker: str, workers: Iterable[str], gpus: int) -> int | None:
    """Return the index of the GPU that a worker uses: those of one machine take its GPUs in turn.

    Args:
        worker: The worker's address, such as `tcp://10.0.0.1:40001`.
        workers: The addresses of all workers, on whatever machines.
        gpus: Number of GPUs that the worker sees.

    Returns:
        None if there is nothing to choose.
    """
    if gpus < 2:
        return None

    def machine(address: str) -> str:
        return address.rpartition(":")[0]

    beside = sorted(other for other in {worker, *workers} if machine(other) == machine(worker))
    return beside.index(worker) % gpus


def on_worker(work: JobFunction, job: Job, threads: int | None, workers: tuple[str, ...]) -> dict[str, str]:
    """Execute a job on the worker that this process is.

    Args:
        work: Executes it.
        job: The job.
        threads: Number of threads to compute with; None leaves it as it is.
        workers: The addresses of all workers.
    """
    from distributed import get_worker

    gpu = gpu_of(get_worker().address, workers, torch.cuda.device_count())
    if gpu is not None:
        # `auto` and `cuda` mean the current GPU; a study that names another index gets that one.
        torch.cuda.set_device(gpu)
    if threads is not None:
        torch.set_num_threads(threads)
    with reuse_freed_memory():  # as in the command that started the study: a worker does nothing else
        return work(job, Progress())
