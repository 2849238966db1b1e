"""Many clips at once by Ray, on this machine or on a cluster with shared storage.

https://docs.ray.io/en/latest/ray-core/tasks.html: a task that a lost worker or node held is given to
another one. A script's own refusal is a result, and is not tried again.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.batch.steps import ClipPlan, Step
from models.batch.work import LostScriptError, Outcome, run_step
from models.run import InputError, restore_handlers

# Bytes of Ray's store for objects: steps and outcomes are small. Ray takes no less.
_STORE = 80 << 20
# Seconds between looks at the tasks.
_LOOK = 1.0
# Share of a node's memory that one task may ask for.
_MOST_MEMORY = 0.9


@dataclass(frozen=True)
class MachineOptions:
    """Machines that the scripts run on, and their share of them."""

    address: str | None = None
    """Address of a running Ray cluster with shared storage, or "auto"; this machine if not given."""
    workers: int | None = None
    """Scripts that run at once on this machine; as many as its cores allow if not given."""
    threads: int | None = None
    """Cores of each script; 1 by Ray, all of this machine in order, if not given. With more cores
    one clip is done sooner, and fewer clips are done in an hour."""
    gpus: float = 0.0
    """GPUs of each script on a cluster; 0.5 puts two scripts on one GPU."""
    retries: int = 3
    """Further tries of a script whose process or machine was lost."""


def has_ray() -> bool:
    """Whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


def run_on_ray(
    plans: Sequence[ClipPlan],
    root: Path,
    options: MachineOptions,
    tell: Callable[[Step | Outcome], None],
) -> None:
    """Runs the steps of all clips, each clip's in their order.

    Args:
        root: the project's folder, at the same place on each machine.
        tell: hears each step that has begun and its outcome.

    Raises:
        InputError: the cluster cannot be reached, or none of its machines can hold a step.
    """
    with _connected(root, options):
        import ray

        cores, memory = _check_machines(ray, options)
        task = ray.remote(
            num_cpus=cores,
            num_gpus=options.gpus,
            max_retries=options.retries,
            retry_exceptions=[LostScriptError],
        )(_run_after)
        waiting: dict[Any, Step] = {}
        for plan in plans:
            before = None
            for step in plan.steps:
                sized = task.options(memory=min(step.memory, memory))
                before = sized.remote(step, cores, before)
                waiting[before] = step
        _follow(ray, waiting, tell)


def count_threads(options: MachineOptions, in_order: bool = False) -> int:
    """Cores of each script."""
    return options.threads or (count_cores() if in_order else 1)


def _follow(ray: Any, waiting: dict[Any, Step], tell: Callable[[Step | Outcome], None]) -> None:
    """Tells of each task until all have ended."""
    failed: set[str] = set()
    old = {step: _changed_at(step.log) for step in waiting.values()}
    while waiting:
        ended, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=_LOOK)
        for step in waiting.values():
            # a task opens its log when it begins
            if step in old and _changed_at(step.log) != old[step]:
                del old[step]
                tell(step)
        for reference in ended:
            step = waiting.pop(reference)
            old.pop(step, None)
            outcome = _outcome_of(ray, reference, step)
            # later steps of a clip that failed end with the failure of the first
            if outcome.script == step.script and step.clip not in failed:
                tell(outcome)
            if not outcome.ok:
                failed.add(step.clip)


def _outcome_of(ray: Any, reference: Any, step: Step) -> Outcome:
    """The outcome of a task that has ended; that of an earlier step of its clip if that failed."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        why = error.cause
        text = str(why) if isinstance(why, LostScriptError) else f"{type(why).__name__}: {why}"
        return Outcome(step.clip, step.script, False, 0.0, text)
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[0]
        return Outcome(step.clip, step.script, False, 0.0, f"its worker was lost: {why}")


def _run_after(step: Step, threads: int, before: Outcome | None) -> Outcome:
    """The task of Ray: runs a step; after a step that failed, hands on its outcome."""
    if before is not None and not before.ok:
        return before
    return run_step(step, threads)


def _changed_at(log: Path) -> int:
    try:
        return log.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def _connected(root: Path, options: MachineOptions) -> Iterator[None]:
    """A connection to the cluster, or Ray on this machine, for the time of the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    # workers import this package from the project's folder
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}
    given: dict[str, Any] = {"runtime_env": environment, "log_to_driver": False}
    if options.address is None:
        threads = count_threads(options)
        cores = (options.workers or max(1, count_cores() // threads)) * threads
        given |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _STORE}
        given |= {"_node_ip_address": "127.0.0.1"}
    try:
        # without an address Ray would join a cluster that happens to run on this machine
        ray.init(options.address or "local", logging_level="ERROR", **given)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = options.address or "this machine"
        raise InputError(f"Ray on {where}: {error}; see docs/clusters.md") from error
    try:
        restore_handlers()
        yield
    finally:
        ray.shutdown()


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_machines(ray: Any, options: MachineOptions) -> tuple[int, int]:
    """Cores and bytes that a step may ask for: no more than the largest machine has, as Ray would
    wait for ever for a larger one.

    Raises:
        InputError: GPUs are asked for, and no machine has them.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = [node for node in nodes if node.get("GPU", 0.0) >= options.gpus]
    if not fitting:
        raise InputError(f"--gpus {options.gpus:g}: no machine of the cluster has that many")
    cores = min(count_threads(options), int(max(node.get("CPU", 1.0) for node in fitting)))
    fitting = [node for node in fitting if node.get("CPU", 1.0) >= cores]
    return cores, int(_MOST_MEMORY * max(node.get("memory", 0.0) for node in fitting))
