#!/usr/bin/env bash
# Makes .mlx-lm/: a Python environment with mlx-lm, which the tests and the benchmarks compare ours with.
#
# Needs a Python of 3.11 or newer with pip; not ensurepip, which Debian packs apart: pip installs into the environment
# from outside. Nothing outside .mlx-lm/ is written. A second run finds the stamp and does nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=scripts/mlx-lm
prefix=$PWD/.mlx-lm

missing() { echo "mlx-lm setup: $1 is missing; install it with: $2" >&2; exit 1; }
for python in python3 python3.14 python3.13 python3.12 python3.11 ""; do
  "${python:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
done
[ -n "$python" ] || missing "Python 3.11 or newer" "apt-get install python3 python3-pip"

# Everything the prefix depends on; when it changes, the prefix is made again.
stamp=$(cat "$here"/* <(echo "$prefix"; "$python" -c 'import sys; print(sys.base_prefix, sys.version)') | sha256sum)
[ "$(cat "$prefix/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
"$python" -m pip --version >/dev/null 2>&1 || missing "pip" "apt-get install python3-pip"

echo "mlx-lm setup: $(sed -n 's/==/ /p' $here/requirements.txt | head -n 1) into .mlx-lm/ (once, about a minute)" >&2
rm -rf "$prefix"
"$python" -m venv --without-pip "$prefix"
packages=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
"$python" -m pip install --quiet --disable-pip-version-check --no-compile --root-user-action=ignore --no-warn-conflicts \
  --target "$packages" --requirement "$here/requirements.txt"
"$prefix/bin/python" -c 'import mlx_lm.utils'
echo "$stamp" >"$prefix/stamp"
