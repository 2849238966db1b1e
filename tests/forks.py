"""A server that imports the scripts once and runs each command in a fork of itself: start-up costs
seconds.

Used by tests that run scripts many times; a child may be killed, and its memory is measured.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None

ROOT = Path(__file__).parent.parent


LATE = ("jinja2", "matplotlib.backends.backend_agg", "matplotlib.figure", "scipy.signal")
LATE += ("skimage.metrics", "trimesh", "tyro")
"""What the scripts import while they run."""


@contextmanager
def fork_server() -> Iterator[subprocess.Popen]:
    """The server's process; speak to it with ``ask``."""
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, __file__], stdin=pipe, stdout=pipe, text=True, env=environment
    ) as process:
        yield process
        process.stdin.close()


def ask(
    server: subprocess.Popen,
    script: str,
    flags: dict[str, object] | list[str],
    folder: Path,
    **job: object,
) -> dict:
    """Runs a script in a folder; the answer holds exit code, seconds, peak memory in GiB, and what
    was printed.

    Args:
        script: background, foreground or demo.
        job: kill_after (seconds since the script heeds signals) and signal (SIGKILL if not given);
            kill_at_file (a number) and renamed (before or after its renaming); largest_file
            (bytes), past which writing fails as on a full disk; limit (seconds) until an alarm ends
            it; uncached to compile the kernels anew; small (True if not given) to train a small
            field.
    """
    texts = flags
    if isinstance(flags, dict):
        texts = [text for key, value in flags.items() for text in (f"--{key}", str(value))]
    log = folder / "log"
    job |= {"script": script, "flags": texts, "folder": str(folder), "log": str(log)}
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline()) | {"log": log.read_text(errors="replace")}


# Small tables and frequent checkpoints, so that a run of demo_pipeline.py is short.
SMALL_FIELD = [
    *("--training.log2_entries_least", "12"),
    *("--training.log2_entries_most", "12"),
    *("--training.checkpoint_seconds", "0.05"),
]


def serve() -> None:
    """Reads commands from stdin, one JSON a line, and answers each with exit code and seconds."""
    sys.path.insert(0, str(ROOT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import background_points
    import demo_pipeline
    import foreground_points

    for name in LATE:
        importlib.import_module(name)
    read_program()
    scripts = {
        "background": background_points,
        "foreground": foreground_points,
        "demo": demo_pipeline,
    }
    kernels, loaded = find_kernels(), {}
    for line in sys.stdin:
        job = json.loads(line)
        if not job.get("uncached"):
            load_kernels(kernels, loaded)
        gc.freeze()  # a child's collections need not look at, and so copy, all that is here
        start = time.perf_counter()
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(job.get("limit", 120))
            run_child(scripts[job["script"]].main, job, told)
        os.close(told)
        if job.get("kill_after") is not None:
            os.read(heard, 1)
            time.sleep(job["kill_after"])
            os.kill(child, job.get("signal", signal.SIGKILL))
        os.close(heard)
        _, status, usage = os.wait4(child, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "seconds": time.perf_counter() - start}
        answer["gib"] = usage.ru_maxrss / 2**20
        print(json.dumps(answer), flush=True)


def run_child(main, job: dict, told: int) -> None:
    """One command in a process of its own, which may kill itself when it renames a file.

    Args:
        told: where it tells that it heeds signals from now on, however slow the machine.
    """
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1), os.dup2(log, 2)
    os.chdir(job["folder"])
    small = job["script"] == "demo" and job.get("small", True)
    sys.argv = [job["script"], *job["flags"], *(SMALL_FIELD if small else [])]
    if job.get("largest_file") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"], resource.RLIM_INFINITY))
    if job.get("kill_at_file") is not None:
        die_at_file(job["kill_at_file"], job["renamed"])
    if job.get("uncached"):
        forget_kernels()
    from models.run.errors import run_script

    def begin() -> None:
        os.write(told, b"!")
        os.close(told)
        main()

    code = 1
    try:
        run_script(begin)
        code = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def read_program() -> None:
    """Parses the sources, which each run needs to tell what its stages depend on."""
    from models.run.fingerprint import _sources

    for path in (ROOT / "models").rglob("*.py"):
        _sources()._needed_by(path)


def find_kernels() -> list:
    """Every compiled function of this program."""
    from numba.core.dispatcher import Dispatcher

    names = [name for name in sys.modules if name.startswith("models.")]
    values = [value for name in names for value in vars(sys.modules[name]).values()]
    return list({id(value): value for value in values if isinstance(value, Dispatcher)}.values())


def load_kernels(kernels: list, loaded: dict[int, int]) -> None:
    """Takes new machine code from the cache, as each fork would for itself.

    Code that runs in numba's threads is left alone: a process that has such threads cannot fork.

    Args:
        loaded: time of the file that each kernel was taken from.
    """
    for number, kernel in enumerate(kernels):
        file = getattr(kernel._cache, "_cache_file", None)
        if file is None or kernel.targetoptions.get("parallel"):
            continue
        try:
            time_of_file = os.stat(file._index_path).st_mtime_ns
        except FileNotFoundError:
            continue
        if loaded.get(number) != time_of_file:
            loaded[number] = time_of_file
            codegen = kernel.targetctx.codegen()
            for key in file._load_index():
                if key == kernel._cache._index_key(key[0], codegen):
                    kernel.compile(key[0])


def forget_kernels() -> None:
    """Has every kernel compiled as in an empty cache."""
    from numba.core.caching import NullCache

    for kernel in find_kernels():
        kernel._cache = NullCache()
        kernel._reset_overloads()


def die_at_file(number: int, renamed: bool) -> None:
    """Kills this process at the renaming of its n-th file, just before or just after."""
    replace, left = os.replace, [number]

    def counted(source, target) -> None:
        left[0] -= 1
        if left[0] < 0 and not renamed:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted


if __name__ == "__main__":
    serve()
