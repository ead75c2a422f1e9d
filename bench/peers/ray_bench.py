"""Measures Ray: the same work as bench/rayd.ts, written as Ray's own microbenchmark writes it.

Everything that Ray starts or writes is gone at the end: its processes, and its directory, which is a temporary one.
"""

import os
import platform
import shutil
import tempfile
import time

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np  # noqa: E402
import ray  # noqa: E402
from measure import (  # noqa: E402
    BIG_BYTES,
    IDLE_WORKERS,
    RESULT_BYTES,
    STORE_BYTES,
    assignment,
    descendants,
    emit,
    measure_all,
    rate,
    reporter,
    tree_memory,
)


@ray.remote
def small():
    return "ok"


@ray.remote
def increment(x):
    return x + 1


@ray.remote
def fib(n):
    if n < 2:
        return n
    a, b = ray.get([fib.remote(n - 1), fib.remote(n - 2)])
    return a + b


@ray.remote
def nested(count):
    return len(ray.get([small.remote() for _ in range(count)]))


@ray.remote
def megabyte():
    return np.zeros(RESULT_BYTES, dtype=np.uint8)


@ray.remote
def sleep(seconds):
    time.sleep(seconds)


@ray.remote(num_cpus=0)
class Small:
    def small(self):
        return "ok"

    def length(self, array):
        return len(array)


@ray.remote(num_cpus=0)
class AsyncSmall:
    async def small(self):
        return "ok"


ACTOR_TASKS = 4


@ray.remote
def call_all(actors, calls):
    return len(ray.get([actors[i % len(actors)].small.remote() for i in range(calls)]))


def main(temporary):
    asked = assignment()
    figures, seconds = asked["figures"], asked["seconds"]
    report = reporter(figures)
    emit(versions={"ray": ray.__version__, "python": platform.python_version()})

    started = time.perf_counter()
    ray.init(
        num_cpus=IDLE_WORKERS if "idle" in figures else asked["cpus"],
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=temporary,
    )
    ray.get(small.remote())
    report("start", time.perf_counter() - started)

    def tasks_async(report):
        report("tasks_async", 1000 * rate(seconds, lambda: ray.get([small.remote() for _ in range(1000)])))

    def tasks_sync(report):
        report("tasks_sync", rate(seconds, lambda: ray.get(small.remote())))

    def fib_8(report):
        report("fib", 1000 / rate(seconds, lambda: ray.get(fib.remote(8))))

    def chain(report):
        def run():
            ref = increment.remote(0)
            for _ in range(99):
                ref = increment.remote(ref)
            ray.get(ref)

        report("chain", 100 * rate(seconds, run))

    def wait(report):
        def run():
            pending = [small.remote() for _ in range(1000)]
            fetch_local = True  # Needed once an object, as in Ray's microbenchmark.
            for _ in range(1000):
                _, pending = ray.wait(pending, fetch_local=fetch_local)
                fetch_local = False

        report("wait", rate(seconds, run))

    def nested_100(report):
        report("nested", 100 * rate(seconds, lambda: ray.get(nested.remote(100))))

    def put_small(report):
        report("put_small", rate(seconds, lambda: ray.put(0)))

    def get_small(report):
        ref = ray.put(0)
        report("get_small", rate(seconds, lambda: ray.get(ref)))

    def big(report):
        source, target = np.full(BIG_BYTES, 1, dtype=np.uint8), np.full(BIG_BYTES, 2, dtype=np.uint8)
        for _ in range(int(1.5 * STORE_BYTES / BIG_BYTES)):
            ray.put(source)
        copies = rate(seconds / 2, lambda: np.copyto(target, source))
        puts = rate(seconds, lambda: ray.put(source))
        report("put_100mb", puts * BIG_BYTES / 1e9)
        report("put_100mb_share", 100 * puts / copies)
        ref = ray.put(source)
        report("get_100mb", 1e6 / rate(seconds / 2, lambda: ray.get(ref)))

    def task_1mb(report):
        report("task_1mb", rate(seconds, lambda: ray.get(megabyte.remote())))

    def million(report):
        started = time.perf_counter()
        ray.get([small.remote() for _ in range(asked["tasks"])])
        report("million", time.perf_counter() - started)
        report("million_peak", tree_memory(os.getpid())[1])

    def idle(report):
        ray.get([sleep.remote(1) for _ in range(IDLE_WORKERS)])
        time.sleep(2)
        report("idle", tree_memory(os.getpid())[0])

    def actor_sync(report):
        actor = Small.remote()
        report("actor_sync", rate(seconds, lambda: ray.get(actor.small.remote())))

    def actor_async(report):
        actor = Small.remote()
        report("actor_async", 1000 * rate(seconds, lambda: ray.get([actor.small.remote() for _ in range(1000)])))

    def actor_interleaved(report):
        actor = AsyncSmall.remote()
        report("actor_interleaved", 1000 * rate(seconds, lambda: ray.get([actor.small.remote() for _ in range(1000)])))

    def actor_many(report):
        actors = [Small.remote() for _ in range(asked["cpus"])]

        def run():
            ray.get([call_all.remote(actors, 1000) for _ in range(ACTOR_TASKS)])

        report("actor_many", 1000 * ACTOR_TASKS * rate(seconds, run))

    def actor_1mb(report):
        actor = Small.remote()
        argument = np.zeros(RESULT_BYTES, dtype=np.uint8)
        report("actor_1mb", rate(seconds, lambda: ray.get(actor.length.remote(argument))))

    def actors_20(report):
        began = time.perf_counter()
        actors = [Small.remote() for _ in range(20)]
        ray.get([actor.small.remote() for actor in actors])
        report("actors_20", time.perf_counter() - began)

    def actors_22(report):
        actors = [Small.remote() for _ in range(22)]
        ray.get([actor.small.remote() for actor in actors])
        time.sleep(2)
        report("actors_22", tree_memory(os.getpid())[0])

    measures = [
        (["actor_sync"], actor_sync),
        (["actor_async"], actor_async),
        (["actor_interleaved"], actor_interleaved),
        (["actor_many"], actor_many),
        (["actor_1mb"], actor_1mb),
        (["actors_20"], actors_20),
        (["actors_22"], actors_22),
        (["tasks_async"], tasks_async),
        (["tasks_sync"], tasks_sync),
        (["fib"], fib_8),
        (["chain"], chain),
        (["wait"], wait),
        (["nested"], nested_100),
        (["put_small"], put_small),
        (["get_small"], get_small),
        (["put_100mb", "put_100mb_share", "get_100mb"], big),
        (["task_1mb"], task_1mb),
        (["million", "million_peak"], million),
        (["idle"], idle),
    ]
    measure_all(measures, figures, report)


def end():
    ray.shutdown()
    deadline = time.monotonic() + 10
    while len(descendants(os.getpid())) > 1 and time.monotonic() < deadline:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        time.sleep(0.05)


if __name__ == "__main__":
    # Short: paths of Ray's sockets are inside.
    directory = tempfile.mkdtemp(prefix="raybench", dir="/tmp")
    try:
        main(directory)
    finally:
        end()
        shutil.rmtree(directory, ignore_errors=True)
