"""Measures Dask's distributed scheduler: the same work as bench/rayd.ts, with worker processes of one thread each.

Dask has no `wait` for one of many that leaves the others alone: `as_completed` takes its place. Its workers have no
shared memory: `scatter` sends a value to a worker, and `gather` brings it back, copied both times.
"""

import os
import tempfile
import time

import dask
import distributed
import numpy as np
from distributed import Client, LocalCluster, as_completed, worker_client
from measure import (
    BIG_BYTES,
    IDLE_WORKERS,
    RESULT_BYTES,
    assignment,
    emit,
    measure_all,
    rate,
    reporter,
    tree_memory,
)


def small():
    return "ok"


def increment(x):
    return x + 1


def fib(n):
    if n < 2:
        return n
    with worker_client() as client:
        a, b = client.gather([client.submit(fib, n - 1, pure=False), client.submit(fib, n - 2, pure=False)])
    return a + b


def nested(count):
    with worker_client() as client:
        return len(client.gather([client.submit(small, pure=False) for _ in range(count)]))


def megabyte():
    return np.zeros(RESULT_BYTES, dtype=np.uint8)


def main():
    asked = assignment()
    figures, seconds = asked["figures"], asked["seconds"]
    report = reporter(figures)
    emit(versions={"dask": dask.__version__, "distributed": distributed.__version__})

    started = time.perf_counter()
    cluster = LocalCluster(
        n_workers=IDLE_WORKERS if "idle" in figures else asked["cpus"],
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
    )
    client = Client(cluster)

    def submit(function, *arguments):
        return client.submit(function, *arguments, pure=False)

    submit(small).result()
    report("start", time.perf_counter() - started)

    def tasks_async(report):
        report("tasks_async", 1000 * rate(seconds, lambda: client.gather([submit(small) for _ in range(1000)])))

    def tasks_sync(report):
        report("tasks_sync", rate(seconds, lambda: submit(small).result()))

    def fib_8(report):
        report("fib", 1000 / rate(seconds, lambda: submit(fib, 8).result()))

    def chain(report):
        def run():
            future = submit(increment, 0)
            for _ in range(99):
                future = submit(increment, future)
            future.result()

        report("chain", 100 * rate(seconds, run))

    def wait(report):
        def run():
            for _ in as_completed([submit(small) for _ in range(1000)]):
                pass

        report("wait", rate(seconds, run))

    def nested_100(report):
        report("nested", 100 * rate(seconds, lambda: submit(nested, 100).result()))

    def put_small(report):
        report("put_small", rate(seconds, lambda: client.scatter(0, hash=False)))

    def get_small(report):
        future = client.scatter(0, hash=False)
        report("get_small", rate(seconds, lambda: client.gather(future)))

    def big(report):
        source, target = np.full(BIG_BYTES, 1, dtype=np.uint8), np.full(BIG_BYTES, 2, dtype=np.uint8)
        for _ in range(4):
            client.scatter(source, hash=False)
        copies = rate(seconds / 2, lambda: np.copyto(target, source))
        puts = rate(seconds, lambda: client.scatter(source, hash=False))
        report("put_100mb", puts * BIG_BYTES / 1e9)
        report("put_100mb_share", 100 * puts / copies)
        future = client.scatter(source, hash=False)
        report("get_100mb", 1e6 / rate(seconds / 2, lambda: client.gather(future)))

    def task_1mb(report):
        report("task_1mb", rate(seconds, lambda: submit(megabyte).result()))

    def million(report):
        started = time.perf_counter()
        client.gather([submit(small) for _ in range(asked["tasks"])])
        report("million", time.perf_counter() - started)
        report("million_peak", tree_memory(os.getpid())[1])

    def idle(report):
        client.gather([submit(time.sleep, 1) for _ in range(IDLE_WORKERS)])
        time.sleep(2)
        report("idle", tree_memory(os.getpid())[0])

    measures = [
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
    try:
        measure_all(measures, figures, report)
    finally:
        client.close()
        cluster.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="daskbench") as directory, dask.config.set(temporary_directory=directory):
        main()
