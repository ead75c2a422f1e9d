#!/bin/sh
# Installs what bench/main.ts compares rayd with, pinned, into bench/.peers: a Python environment with Ray and Dask,
# and the JavaScript pools for Node; and for bench/collective.ts, where there is apt and the right to use it, the
# system's OpenMPI with mpi4py. Needs python3 (3.10 or newer) and npm. Remove the directory to be rid of it all.
set -eu

here=$(dirname "$(readlink -f "$0")")
peers=$here/.peers
mkdir -p "$peers"
cd "$peers"

[ -x venv/bin/python ] || python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  'ray==2.60.*' 'dask[distributed]==2026.8.*' 'numpy==2.*'

cat >package.json <<'JSON'
{
  "private": true,
  "dependencies": { "piscina": "5.3.2", "tinypool": "2.2.0", "workerpool": "10.0.3" }
}
JSON
npm install --silent --no-audit --no-fund

# Programs outside this directory find the packages through this.
cat >load.mjs <<'MJS'
import { readFileSync } from "node:fs";
export const load = (name) => import(name);
export const versionOf = (name) =>
  JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url), "utf8")).version;
MJS

if ! { command -v mpirun && /usr/bin/python3 -c 'import mpi4py, numpy'; } >/dev/null 2>&1; then
  if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      openmpi-bin python3-mpi4py python3-numpy >/dev/null
  else
    echo "OpenMPI is not installed: as root, apt-get install openmpi-bin python3-mpi4py python3-numpy" >&2
  fi
fi

venv/bin/python -c 'import ray, distributed; print("ray", ray.__version__, "distributed", distributed.__version__)'
echo "installed in bench/.peers"
