# Finds or fetches what builds rayd; sourced by the other scripts here, with $root set.
#
# Deno and denort (the runtime that `deno compile` puts under a program) are pinned by version and content hash. They
# come through the package managers' own clients, so whatever mirror or proxy a machine is set up for is used. What
# was fetched lies in .toolchain/, with Deno's package cache, and is enough to build without a network afterwards.

DENO_VERSION=2.6.10
DENO_WHEEL_SHA256=d1600f4ee7b4a9699b7057841bdb5d7b7eac3fb073df072540064166841c2f4c
DENO_SHA256=bb9513ce8a9a7a976a77e0a32c5818035fb72dff6364afc5b8659594ba4a6139

# Where there is npm but not pip: npm does not have 2.6.10.
DENO_NPM_VERSION=2.9.6
DENO_NPM_TARBALL_SHA256=a6596af07f3570b4f1ffa6783bfee9942aac14a719a601baa6bf5b71bf0105e2

# The newest Deno that the library is tested on.
DENO_NEWEST_VERSION=2.9.8
DENO_NEWEST_WHEEL_SHA256=b1d1318e7deda8efd593aefa8b565a827fe71cf83aeff09d3a5ceb047444ca18

# denort of DENO_VERSION: the ELF file alone, without a program behind it.
DENORT_BYTES=92183912
DENORT_SHA256=1b136202dc147212ad0b129de0c10eb5f17060917c9754c7921cd68f764ad2e2
# A wheel whose executable `deno compile` of that same version made; its first DENORT_BYTES bytes are denort.
DENORT_WHEEL=bids-validator-deno
DENORT_WHEEL_VERSION=2.4.1
DENORT_WHEEL_SHA256=5087fcd13341f529b5404792a74e22f570e50f17e5ea4cabe9c91b1caf74cbf4

tools=$root/.toolchain
DENO_DIR=$tools/deno_dir
DENO_TLS_CA_STORE=${DENO_TLS_CA_STORE:-system}
DENO_NO_UPDATE_CHECK=1
DENO_NO_PROMPT=1
export DENO_DIR DENO_TLS_CA_STORE DENO_NO_UPDATE_CHECK DENO_NO_PROMPT

say() { printf 'rayd: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }
has_pip() { has python3 && python3 -m pip --version >/dev/null 2>&1; }
is_x86_64_linux() { [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ]; }

# sha256_is FILE HASH
sha256_is() { [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$2" ]; }

# deno_version_of EXECUTABLE
deno_version_of() { NO_COLOR=1 "$1" --version 2>/dev/null | sed -n '1s/^deno \([0-9.]*\).*/\1/p'; }

# fetch_wheel_file PACKAGE VERSION HASH NAME TARGET: the file NAME out of a wheel whose hash pip checks.
fetch_wheel_file() {
  fetching=$(mktemp -d "$tools/fetch.XXXXXX")
  printf '%s==%s --hash=sha256:%s\n' "$1" "$2" "$3" >"$fetching/requirements.txt"
  if ! python3 -m pip download --quiet --no-deps --require-hashes --only-binary=:all: --no-cache-dir \
    --dest "$fetching" -r "$fetching/requirements.txt" >"$fetching/log" 2>&1; then
    sed 's/^/  pip: /' "$fetching/log" >&2
    rm -rf "$fetching"
    return 1
  fi
  python3 - "$fetching" "$4" "$5" <<'PYTHON' || { rm -rf "$fetching"; return 1; }
import glob, shutil, sys, zipfile
fetching, name, target = sys.argv[1:]
with zipfile.ZipFile(glob.glob(fetching + "/*.whl")[0]) as wheel:
    member = next(each for each in wheel.namelist() if each.endswith("/scripts/" + name))
    with wheel.open(member) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out)
PYTHON
  rm -rf "$fetching"
  chmod +x "$5"
}

# fetch_npm_deno TARGET
fetch_npm_deno() {
  fetching=$(mktemp -d "$tools/fetch.XXXXXX")
  if ! (cd "$fetching" && npm pack --silent "@deno/linux-x64-glibc@$DENO_NPM_VERSION" >log 2>&1); then
    sed 's/^/  npm: /' "$fetching/log" >&2
    rm -rf "$fetching"
    return 1
  fi
  set -- "$1" "$fetching"/*.tgz
  if ! sha256_is "$2" "$DENO_NPM_TARBALL_SHA256"; then
    rm -rf "$fetching"
    die "Deno $DENO_NPM_VERSION from npm is not the one that is pinned: its hash differs"
  fi
  tar -xzf "$2" -C "$fetching" package/deno && mv "$fetching/package/deno" "$1"
  rm -rf "$fetching"
  chmod +x "$1"
}

# Sets $deno and $deno_version.
find_deno() {
  mkdir -p "$tools/bin"
  for deno in "$tools/bin/deno" "$(command -v deno 2>/dev/null || true)"; do
    [ -x "$deno" ] || continue
    deno_version=$(deno_version_of "$deno")
    case $deno_version in
      "$DENO_VERSION" | "$DENO_NPM_VERSION") return 0 ;;
    esac
  done
  deno=$tools/bin/deno
  new=$tools/bin/.deno.$$
  is_x86_64_linux ||
    die "Deno is pinned for Linux on x86_64 only; put Deno $DENO_VERSION on the PATH to build on this machine"
  if has_pip; then
    say "fetching Deno $DENO_VERSION (48 MB, through pip)"
    if fetch_wheel_file deno "$DENO_VERSION" "$DENO_WHEEL_SHA256" deno "$new"; then
      sha256_is "$new" "$DENO_SHA256" || die "Deno $DENO_VERSION from pip is not the one that is pinned"
      mv "$new" "$deno"
      deno_version=$DENO_VERSION
      return 0
    fi
    say "pip could not fetch it"
  fi
  if has npm && has tar; then
    say "fetching Deno $DENO_NPM_VERSION (42 MB, through npm)"
    if fetch_npm_deno "$new"; then
      mv "$new" "$deno"
      deno_version=$DENO_NPM_VERSION
      return 0
    fi
    say "npm could not fetch it"
  fi
  die "Deno is missing. Install python3 with pip, or node with npm, and see that one of them reaches its registry; or" \
    "put Deno $DENO_VERSION on the PATH"
}

# cut_denort EXECUTABLE: keeps the runtime out of an executable that `deno compile` made, if it is the pinned one.
cut_denort() {
  head -c "$DENORT_BYTES" "$1" >"$tools/bin/.denort.$$"
  if sha256_is "$tools/bin/.denort.$$" "$DENORT_SHA256"; then
    chmod +x "$tools/bin/.denort.$$"
    mv "$tools/bin/.denort.$$" "$tools/bin/denort"
    return 0
  fi
  rm -f "$tools/bin/.denort.$$"
  return 1
}

# Sets and exports DENORT_BIN if it is known where denort is; fails if it cannot be had at all.
find_denort() {
  [ -n "${DENORT_BIN:-}" ] && return 0
  if [ "$deno_version" = "$DENO_VERSION" ] && [ -x "$tools/bin/denort" ]; then
    DENORT_BIN=$tools/bin/denort
    export DENORT_BIN
    return 0
  fi
  # The ordinary way: Deno fetches it itself, and keeps it under DENO_DIR.
  fetching=$(mktemp -d "$tools/fetch.XXXXXX")
  echo 'console.log(1)' >"$fetching/probe.js"
  say "fetching denort $deno_version (through deno compile)"
  if (cd "$fetching" && timeout 180 "$deno" compile --quiet --no-config --no-check -o probe probe.js >log 2>&1); then
    if [ "$deno_version" = "$DENO_VERSION" ] && is_x86_64_linux && ! cut_denort "$fetching/probe"; then
      rm -rf "$fetching"
      die "denort $deno_version as Deno fetches it is not the one that is pinned: its hash differs"
    fi
    rm -rf "$fetching"
    [ ! -x "$tools/bin/denort" ] || { DENORT_BIN=$tools/bin/denort && export DENORT_BIN; }
    return 0
  fi
  rm -rf "$fetching"
  if [ "$deno_version" = "$DENO_VERSION" ] && is_x86_64_linux && has_pip; then
    say "that failed; taking it out of $DENORT_WHEEL $DENORT_WHEEL_VERSION (45 MB, through pip)"
    new=$tools/bin/.wheel.$$
    if fetch_wheel_file "$DENORT_WHEEL" "$DENORT_WHEEL_VERSION" "$DENORT_WHEEL_SHA256" bids-validator-deno "$new" &&
      cut_denort "$new"; then
      rm -f "$new"
      DENORT_BIN=$tools/bin/denort
      export DENORT_BIN
      return 0
    fi
    rm -f "$new"
  fi
  return 1
}

# Sets up cargo. Where rustup's files are not found because HOME is another, they are looked for beside cargo.
find_cargo() {
  has cargo || die "cargo is missing: it builds the object store. Install Rust 1.81 or newer (rustup, or the system's packages)"
  if ! cargo --version >/dev/null 2>&1; then
    cargo_home=$(dirname "$(dirname "$(command -v cargo)")")
    if [ -d "$(dirname "$cargo_home")/.rustup" ]; then
      RUSTUP_HOME=${RUSTUP_HOME:-$(dirname "$cargo_home")/.rustup}
      CARGO_HOME=${CARGO_HOME:-$cargo_home}
      export RUSTUP_HOME CARGO_HOME
    fi
    cargo --version >/dev/null || die "cargo does not start (see above)"
  fi
}

# Installs the packages of the lock file into node_modules, if that was not done yet.
install_packages() {
  if [ -e "$root/node_modules/.installed" ] &&
    cmp -s "$root/deno.lock" "$root/node_modules/.installed"; then
    return 0
  fi
  say "installing packages"
  (cd "$root" && NO_COLOR=1 "$deno" install --frozen --quiet) >"$tools/install.log" 2>&1 || {
    sed 's/^/  deno: /' "$tools/install.log" >&2
    die "the packages of deno.lock could not be installed. If deno.json was changed, run \"deno install\" and commit deno.lock"
  }
  cp "$root/deno.lock" "$root/node_modules/.installed"
}

# Sets $newest and $newest_version: the newest Deno that the library is tested on. Fails if it cannot be had.
find_newest_deno() {
  newest_version=$DENO_NEWEST_VERSION
  newest=$tools/bin/deno-$newest_version
  [ -x "$newest" ] && return 0
  new=$tools/bin/.newest.$$
  if is_x86_64_linux && has_pip; then
    say "fetching Deno $newest_version (42 MB, through pip)"
    if fetch_wheel_file deno "$newest_version" "$DENO_NEWEST_WHEEL_SHA256" deno "$new"; then
      mv "$new" "$newest"
      return 0
    fi
  fi
  newest_version=$DENO_NPM_VERSION
  newest=$tools/bin/deno-$newest_version
  [ -x "$newest" ] && return 0
  if is_x86_64_linux && has npm && has tar; then
    say "fetching Deno $newest_version (42 MB, through npm)"
    if fetch_npm_deno "$new"; then
      mv "$new" "$newest"
      return 0
    fi
  fi
  return 1
}
