"""Ray Train around the loop: any number of CPU (gloo) or GPU (NCCL) workers."""

import contextlib
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import psutil
import torch

from pipeline.config.execution import ClusterConfig
from pipeline.errors import MissingRequirementError, RunError
from pipeline.provenance import usable_cores
from pipeline.training.job import STOP, NonFiniteError, TrainingJob, Worker
from pipeline.training.loop import train

HEAD = "gcs_server"  # the heart of the Ray that this process started
POLL_INTERVAL_S = 1.0
SAVE_WAIT_S = 60.0  # batch systems kill this long, at the least, after SIGTERM
START_ATTEMPTS = 3
GOES_ON = "the same command goes on from the last checkpoint"

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # how late Ray sees that workers have ended
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", "10")  # a worker that has stopped never answers


def fit(job: TrainingJob, poll: Callable[[], None], say: Callable[[str], None]) -> None:
    """Train `job` to its end, surviving worker failures from the last checkpoint; `poll` is called every second.

    Raises RunError where a loss was not finite, a disk was full or a checkpoint unreadable (neither is tried again),
    where Ray died, and where workers failed more often than cluster.max_failures; MissingRequirementError where the
    workers ask for more than the cluster has; KeyboardInterrupt after Ctrl-C or SIGTERM, with a checkpoint of the
    last step written and Ray shut down.
    """
    start(job.cluster)
    stop = job.run_folder / STOP
    stop.unlink(missing_ok=True)
    trainer = _trainer(job)
    raised: list[BaseException] = []
    ended = threading.Event()  # an interrupted Thread.join takes a living thread for ended (Python 3.11)

    def run() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # handed to the caller below
            raised.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, daemon=True)  # on the main thread Ray would take Ctrl-C, and exit with 0
    with terminating_as_interrupt():
        try:
            thread.start()
            while not ended.wait(POLL_INTERVAL_S):
                poll()
                check_head(f"training {job.model.name}")
        except KeyboardInterrupt:
            stop.touch()
            say("stopping behind a checkpoint; interrupt again to stop at once")
            _wait(ended, poll)
            shutdown()
            raise
    if raised:
        raise _failure(job, raised[0]) from raised[0]


def _failure(job: TrainingJob, raised: BaseException) -> RunError:
    """What the user is told, by what ended the run."""
    from pipeline.training import ray_failure

    told = ray_failure.told(raised)
    checkpoints = f"the last checkpoint is in {job.run_folder / 'checkpoints'}"
    if isinstance(told, NonFiniteError):
        return RunError(
            f"training {job.model.name} stopped at {told}. Lower training.learning_rate, raise training.warmup_steps, "
            f"or check the data; {checkpoints}"
        )
    if told:
        return RunError(
            f"training {job.model.name} stopped: {told}. Once that is mended the same command goes on; {checkpoints}"
        )
    reason = ray_failure.reason(raised, job.cluster)
    return RunError(f"training {job.model.name} failed: {reason}; {GOES_ON}")


def check_head(what: str) -> None:
    """Raise RunError where Ray's head is gone, for which Ray itself would wait for minutes; `what` needed it."""
    if any(not head.is_running() or head.status() == psutil.STATUS_ZOMBIE for head in _heads):
        for raylet in (one for one in psutil.Process().children() if one.name() == "raylet"):
            for worker in raylet.children(recursive=True):  # they would train on until Ray has given up
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
        shutdown()
        raise RunError(f"{what} failed: Ray's {HEAD} ended; {GOES_ON}")


def _wait(ended: threading.Event, poll: Callable[[], None]) -> None:
    """Until workers have saved and ended, or are taking too long, or somebody interrupts again."""
    deadline = time.monotonic() + SAVE_WAIT_S
    with contextlib.suppress(KeyboardInterrupt):
        while not ended.wait(POLL_INTERVAL_S) and time.monotonic() < deadline:
            poll()


def _trainer(job: TrainingJob) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from pipeline.training.ray_failure import EndAtOnce
    from pipeline.training.ray_group import GroupConfig, environment

    cluster = job.cluster
    cpus = cpus_per_worker(cluster)
    return TorchTrainer(
        _train_worker,
        train_loop_config={"job": job, "threads": max(1, int(cpus))},
        scaling_config=ScalingConfig(
            num_workers=world_size(cluster),
            placement_strategy="PACK",  # ranks are numbered node by node, so those of one copy are neighbours
            use_gpu=cluster.device == "cuda",
            resources_per_worker={"CPU": cpus} | ({"GPU": 1} if cluster.device == "cuda" else {}),
        ),
        torch_config=GroupConfig(
            backend="nccl" if cluster.device == "cuda" else "gloo",
            timeout_s=60 * cluster.collective_timeout_minutes,
            variables=environment(job.run_folder),
        ),
        run_config=RunConfig(
            name=job.run_folder.name,
            storage_path=str(job.run_folder.parent / "ray"),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            callbacks=[EndAtOnce()],
        ),
    )


@contextlib.contextmanager
def terminating_as_interrupt() -> Iterator[None]:
    """SIGTERM, as batch systems send it, counts as Ctrl-C in here."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_resources(cluster: ClusterConfig) -> None:
    """Raise MissingRequirementError where this machine cannot hold the workers: Ray would wait for ever.

    A cluster of several machines is asked once it is connected.
    """
    if not cluster.ray_address:
        _compare(cluster, {"CPU": float(usable_cores()), "GPU": float(torch.cuda.device_count())}, "this machine has")


def _compare(cluster: ClusterConfig, present: dict[str, float], where: str) -> None:
    needed = {"CPU": cpus_per_worker(cluster) * world_size(cluster)}
    if cluster.device == "cuda":
        needed["GPU"] = world_size(cluster)
    mends = {"CPU": "or set cluster.cpus_per_worker=0", "GPU": "or set cluster=local_cpu"}
    asked, lower = f"cluster.num_workers={cluster.num_workers}", "lower cluster.num_workers"
    if cluster.tp_size > 1:
        asked, lower = f"{asked} cluster.tp_size={cluster.tp_size}", f"{lower} or cluster.tp_size"
    faults = [
        f"{asked}: the workers need {wanted:g} {kind}s, {where} {present.get(kind, 0.0):g}; {lower}, {mends[kind]}"
        for kind, wanted in needed.items()
        if wanted > present.get(kind, 0.0) + 1e-6
    ]
    if faults:
        raise MissingRequirementError("\n".join(faults))


def start(cluster: ClusterConfig) -> None:
    """Connect to cluster.ray_address, or start Ray on this machine; once a process.

    Ray that is started here listens on the loopback address alone and answers nobody without its token, which lives in
    the environment of this process and of those it starts. Raises MissingRequirementError where no cluster answers or
    it is too small.
    """
    if not cluster.ray_address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's name for "the node's address is 127.0.0.1"
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", _token
        if "ray" in sys.modules and not _started:
            raise RunError(
                "ray was imported in this process before training was to start it, and has read its settings already: "
                "import pipeline.training.ray_launcher first and call its start(), or give cluster.ray_address"
            )
        _started.append(True)
    import ray  # reads them once a process

    if not ray.is_initialized():
        _connect(cluster)
    _compare(cluster, ray.cluster_resources(), "the Ray cluster has")


def _connect(cluster: ClusterConfig) -> None:
    import ray

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    local: dict[str, Any] = {} if cluster.ray_address else {"num_cpus": usable_cores()}
    attempts = 1 if cluster.ray_address else START_ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            with _one_arena():
                ray.init(
                    address=cluster.ray_address or "local",
                    include_dashboard=None if cluster.ray_address else cluster.ray_dashboard,
                    logging_level="warning",
                    log_to_driver=False,
                    configure_logging=True,
                    **local,
                )
            break
        except Exception as error:  # Ray gives a node 30 s to come up, which a busy machine exceeds
            ray.shutdown()
            if cluster.ray_address:
                raise MissingRequirementError(
                    f"cluster.ray_address={cluster.ray_address}: no Ray cluster answers there ({_last_line(error)}); "
                    "start one with `ray start --head`, give its token as RAY_AUTH_TOKEN, or leave the address out"
                ) from error
            if attempt == attempts:
                raise RunError(f"Ray did not start: {_last_line(error)} Is this machine very busy?") from error
    if not cluster.ray_address:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if child.name() == HEAD and child.status() != psutil.STATUS_ZOMBIE:
                    _heads.append(child)


@contextlib.contextmanager
def _one_arena() -> Iterator[None]:
    """Ray trains in a thread of its workers, whose memory glibc would keep apart, in pieces no larger than 64 MiB."""
    before = os.environ.get("MALLOC_ARENA_MAX")
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")  # for what Ray starts
    try:
        yield
    finally:
        if before is None:
            del os.environ["MALLOC_ARENA_MAX"]


_token = secrets.token_hex(32)  # Ray reads it once a process
_started: list[bool] = []  # whether this process has started Ray before
_heads: list[psutil.Process] = []  # one, where the Ray that this process has started runs


def shutdown() -> None:
    """Stop the Ray that `start` started; harmless where there is none."""
    if "ray" not in sys.modules:  # to import it here would keep a later start from setting it up
        return
    import ray

    if ray.is_initialized():
        ray.shutdown()
    _heads.clear()


def world_size(cluster: ClusterConfig) -> int:
    """Ranks that train: every data-parallel worker is tp_size of them."""
    return cluster.num_workers * cluster.tp_size


def cpus_per_worker(cluster: ClusterConfig) -> float:
    """CPU cores a rank reserves: the setting, or all cores shared evenly."""
    if cluster.cpus_per_worker:
        return cluster.cpus_per_worker
    if cluster.ray_address:
        return 1.0
    cores, ranks = usable_cores(), world_size(cluster)
    return max(1, cores // ranks) if ranks <= cores else cores / ranks


def _train_worker(config: dict[str, Any]) -> None:
    """What Ray runs in every worker process."""
    from ray import train as ray_train
    from ray.train.torch import get_device

    job: TrainingJob = config["job"]
    if job.cluster.device == "cpu":
        torch.set_num_threads(config["threads"])
    context = ray_train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), get_device())
    train(job, worker, lambda metrics: None)  # a report would wait for Ray's next look, up to 2 s


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
