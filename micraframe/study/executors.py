"""Where the jobs of a study run: in this process, or on the workers of a Dask cluster.

Workers share the study's folder with whoever started them: on one machine, or on a cluster's shared file system. What
is done lies there, so that a job whose worker was lost goes on elsewhere from its last checkpoint.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
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
    from distributed import Client

Work = Callable[[Job, Progress], dict[str, str]]
"""Runs the cells of a job; returns the tracebacks of those that failed, by their names."""

LOST = 3
"""So many workers may be lost in a job until it is given up: then it is the job that kills them."""


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
    walltime: str = Field("04:00:00", description="When SLURM ends a worker; its job goes on in another.")
    directives: list[str] = Field([], description="Further lines of #SBATCH, such as --gres=gpu:1.")
    prologue: list[str] = Field([], description="What the script does first, such as: module load cuda.")
    python: str | None = Field(None, description="The workers' Python; none: the one that runs the study.")


@final
class Dask(Executor):
    """Jobs on the workers of a Dask cluster: local, at an address, or given by SLURM.

    Args:
        workers: Number of processes on this machine, if nothing else is named.
        scheduler: Address of a running scheduler, such as `tcp://10.0.0.1:8786`.
        slurm: What to ask SLURM for.
    """

    def __init__(self, workers: int = 2, scheduler: str | None = None, slurm: Slurm | None = None) -> None:
        self._workers = workers
        self._scheduler = scheduler
        self._slurm = slurm

    def run(self, jobs: Sequence[Job], work: Work, progress: Progress) -> Iterator[tuple[Job, dict[str, str]]]:
        """Yield each job when it is done, in the order in which they end.

        Raises:
            MissingDependency: If dask's packages are not installed.
        """
        with self._client() as client:
            from distributed import as_completed

            threads = self._threads()
            futures = {
                client.submit(_on_worker, work, job, threads, key=f"{job[0]}-{job[0].training_key}", pure=False): job
                for job in jobs
            }
            for future in as_completed(futures):
                job, error = futures[future], future.exception()
                # The work keeps its failures to itself: what arrives as an error is the loss of workers.
                yield job, {str(cell): f"{type(error).__name__}: {error}" for cell in job} if error else future.result()

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
                    client = Client(self._scheduler, timeout="30s")
                except (OSError, ValueError) as error:
                    raise ConfigError(f"no Dask scheduler answers at {self._scheduler!r}: {error}") from error
                with client:
                    yield client
                return
            cluster: Any
            if self._slurm:
                cluster = slurm_cluster(self._slurm)
                cluster.scale(jobs=self._slurm.workers)
            else:
                cluster = LocalCluster(
                    n_workers=self._workers, threads_per_worker=1, processes=True, dashboard_address=None
                )
            with cluster, Client(cluster) as client:
                yield client

    def _threads(self) -> int | None:
        """Return how many threads a worker's arithmetic takes; None where the worker knows best."""
        if self._scheduler:
            return None
        if self._slurm:
            return self._slurm.cores
        return max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // self._workers))


def slurm_cluster(slurm: Slurm, log: Path = Path("slurm-logs")) -> Any:
    """Return dask-jobqueue's cluster, of which no worker has been asked for yet.

    Raises:
        MissingDependency: If dask-jobqueue is not installed.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise MissingDependency(f"{error}; dask-jobqueue is wanted: pip install 'micraframe[dask]'") from error
    return SLURMCluster(
        queue=slurm.queue,
        account=slurm.account,
        cores=slurm.cores,
        # One process and one job at a time on it: a training takes all its cores.
        processes=1,
        worker_extra_args=["--nthreads", "1"],
        memory=slurm.memory,
        walltime=slurm.walltime,
        job_extra_directives=slurm.directives,
        job_script_prologue=slurm.prologue,
        python=slurm.python,
        log_directory=str(log),
        scheduler_options={"dashboard_address": None},
    )


def _on_worker(work: Work, job: Job, threads: int | None) -> dict[str, str]:
    if threads is not None:
        torch.set_num_threads(threads)
    return work(job, Progress())
