"""What bench/cluster.ts measures, with Ray: a head without CPUs and a worker on one machine, by Ray's own test cluster.

Prints one JSON line a figure.
"""

import json
import os
import time

import numpy
import ray
from ray.cluster_utils import Cluster


def show(figure, value):
    print(json.dumps({"figure": figure, "value": value}), flush=True)


def memory_mb(roots):
    """Proportional set size of processes and all their descendants, in MB."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                parents[int(name)] = int(stat.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            pass
    family = set(roots)
    grown = True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if parent in family and pid not in family:
                family.add(pid)
                grown = True
    total = 0
    for pid in family - {os.getpid()}:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        except OSError:
            pass
    return total / 1000


@ray.remote
def nothing():
    pass


@ray.remote
def large():
    return numpy.ones(100_000_000, numpy.uint8)


started = time.time()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 10**9})
cluster.add_node(num_cpus=os.cpu_count(), object_store_memory=10**9)
ray.init(address=cluster.address, log_to_driver=False)
ray.get(nothing.remote())
show("start", time.time() - started)
time.sleep(2)
show("idle", memory_mb({os.getpid()}))


def rate(seconds, call):
    call()
    begun = time.perf_counter()
    count = 0
    while time.perf_counter() - begun < seconds:
        count += call()
    return count / (time.perf_counter() - begun)


def many(count):
    ray.get([nothing.remote() for _ in range(count)])
    return count


many(2000)
show("far_async", rate(2, lambda: many(1000)))
show("far_sync", rate(1, lambda: many(1)))
times = []
for _ in range(7):
    ref = large.remote()
    ray.wait([ref], fetch_local=False)
    begun = time.perf_counter()
    assert len(ray.get(ref)) == 100_000_000
    times.append(time.perf_counter() - begun)
    del ref
show("fetch", 0.1 / sorted(times)[len(times) // 2])
ray.shutdown()
cluster.shutdown()
