"""Measures OpenMPI: the same collectives as bench/collective.ts, over numpy arrays. Started by it, through mpirun."""

import json
import sys

import numpy as np
from mpi4py import MPI


def main():
    asked = json.loads(sys.argv[1])
    world = MPI.COMM_WORLD
    for length in asked["lengths"]:
        source = np.full(length, world.Get_rank() + 1, dtype=np.float32)
        target = np.zeros(length, dtype=np.float32)
        times = []
        for _ in range(asked["rounds"]):
            world.Barrier()
            started = MPI.Wtime()
            world.Allreduce(source, target, op=MPI.SUM)
            # The round lasts until the last one has its result.
            times.append(world.allreduce(MPI.Wtime() - started, op=MPI.MAX))
        assert target[-1] == world.Get_size() * (world.Get_size() + 1) / 2
        if world.Get_rank() == 0:
            print(json.dumps({"length": length, "seconds": sorted(times)[len(times) // 2]}), flush=True)
    if world.Get_rank() == 0:
        version = MPI.Get_library_version().split(",")[0].strip()
        print(json.dumps({"version": version}), flush=True)


main()
