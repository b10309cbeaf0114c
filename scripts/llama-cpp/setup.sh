#!/usr/bin/env bash
# Makes .llama-cpp/: llama.cpp for the CPU, which the benchmarks compare ours with, and a Python that writes its files.
#
# llama.cpp comes as the binary that node-llama-cpp is published with; nothing is compiled. Of that, npm takes the package
# with the binary alone, whose digest is in package-lock.json. Needs npm, and a Python of 3.11 or newer with pip. Nothing
# outside .llama-cpp/ is written. A second run finds the stamp and does nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=scripts/llama-cpp
prefix=$PWD/.llama-cpp

missing() { echo "llama.cpp setup: $1 is missing; install it with: $2" >&2; exit 1; }
case $(uname -sm) in
  "Linux x86_64") machine=linux-x64 ;;
  "Linux aarch64") machine=linux-arm64 ;;
  *) echo "llama.cpp setup: no binary for $(uname -sm), so nothing to compare with" >&2; exit 0 ;;
esac
for python in python3 python3.14 python3.13 python3.12 python3.11 ""; do
  "${python:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
done
[ -n "$python" ] || missing "Python 3.11 or newer" "apt-get install python3 python3-pip"

# Everything the prefix depends on; when it changes, the prefix is made again.
stamp=$(cat "$here"/* <(echo "$prefix"; "$python" -c 'import sys; print(sys.base_prefix, sys.version)') | sha256sum)
[ "$(cat "$prefix/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
command -v npm >/dev/null || missing "npm" "apt-get install npm"
"$python" -m pip --version >/dev/null 2>&1 || missing "pip" "apt-get install python3-pip"

package=@node-llama-cpp/$machine
echo "llama.cpp setup: $package $(sed -n "s|.*\"$package\": \"\(.*\)\".*|\1|p" $here/package.json) into .llama-cpp/ (once)" >&2
rm -rf "$prefix" && mkdir "$prefix"
cp "$here/package.json" "$here/package-lock.json" "$prefix"
npm ci --prefix "$prefix" --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null
"$python" -m venv --without-pip "$prefix/python"
packages=$("$prefix/python/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
"$python" -m pip install --quiet --disable-pip-version-check --no-compile --root-user-action=ignore --no-warn-conflicts \
  --no-deps --target "$packages" --requirement "$here/requirements.txt"
# To npm it is no error when an optional package does not come.
"$prefix/python/bin/python" -c 'import ctypes, sys, gguf; ctypes.CDLL(sys.argv[1])' \
  "$(echo "$prefix/node_modules/$package/bins/$machine"/libllama.*)"
echo "$stamp" >"$prefix/stamp"
