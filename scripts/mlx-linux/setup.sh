#!/usr/bin/env bash
# Makes .mlx/: MLX for the CPU of a Linux machine, and the cargo configuration that links mlx-sys to it.
#
# The published mlx-sys builds for Apple systems. On Linux this takes the same MLX release from PyPI (mlx-cpu),
# compiles the C shim that mlx-sys carries, makes the bindings, and hands the three to cargo through its override
# for `links` crates. Nothing outside .mlx/ is written. A second run finds the stamp and does nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=scripts/mlx-linux
prefix=$PWD/.mlx
mlx=0.32.2 cmake=3.31.6 ninja=1.11.1.4 libclang=18.1.1 bindgen=0.72.1

missing() { echo "mlx setup: $1 is missing; install it with: $2" >&2; exit 1; }
command -v c++ >/dev/null || missing "a C++ compiler" "apt-get install g++"
command -v python3 >/dev/null || missing "python3" "apt-get install python3 python3-pip"
python3 -m pip --version >/dev/null 2>&1 || missing "pip" "apt-get install python3-pip"
command -v cargo >/dev/null || missing "cargo" "the instructions at https://rustup.rs"

blas=$(ldconfig -p 2>/dev/null | sed -n 's/.*=> \(.*openblas.*\/libblas\.so\.3\)$/\1/p' | head -n 1)
if [ -z "$blas" ]; then
  for candidate in /usr/lib/*-linux-gnu/openblas-pthread/libblas.so.3 /usr/lib/*-linux-gnu/openblas-openmp/libblas.so.3; do
    [ -e "$candidate" ] && blas=$candidate && break
  done
fi
source=$(cargo metadata --format-version 1 --locked | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(next(os.path.dirname(p["manifest_path"]) for p in packages if p["name"] == "mlx-sys"))')
triple=$(rustc -vV | sed -n 's/^host: //p')

# Everything the prefix depends on; when it changes, the prefix is made again.
stamp=$(cat "$here"/* <(echo "$prefix $source $blas $triple $mlx $cmake $ninja $libclang $bindgen") | sha256sum)
[ -f "$prefix/cargo.toml" ] && [ "$(cat "$prefix/stamp" 2>/dev/null)" = "$stamp" ] && exit 0

echo "mlx setup: MLX $mlx for $triple into .mlx/ (once, about two minutes)" >&2
rm -rf "$prefix" && mkdir -p "$prefix"
python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --root-user-action=ignore \
  --target "$prefix/python" "mlx-cpu==$mlx" "cmake==$cmake" "ninja==$ninja" "libclang==$libclang"
libraries=$prefix/python/mlx_cpu.libs
if [ -n "$blas" ]; then
  # The wheel links the reference BLAS, some forty times slower than OpenBLAS at a float32 matrix product.
  for library in "$libraries"/libblas-*; do ln -sf "$blas" "$library"; done
else
  echo "mlx setup: using the slow reference BLAS; apt-get install libopenblas0-pthread makes benchmarks much faster" >&2
fi

"$prefix/python/cmake/data/bin/cmake" -S "$source/src/mlx-c" -B "$prefix/mlx-c" -G Ninja -Wno-dev \
  -DCMAKE_MAKE_PROGRAM="$(find "$prefix/python" -path '*bin/ninja' -type f | head -n 1)" \
  -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix/python/mlx" \
  -DMLX_C_USE_SYSTEM_MLX=ON -DMLX_C_BUILD_EXAMPLES=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
  -DCMAKE_CXX_FLAGS="-include $PWD/$here/format.h -include $PWD/$here/half.h" >"$prefix/log" 2>&1 &&
  "$prefix/python/cmake/data/bin/cmake" --build "$prefix/mlx-c" --target mlxc >>"$prefix/log" 2>&1 ||
  { tail -n 20 "$prefix/log" >&2; exit 1; }

cargo install --quiet --locked --root "$prefix/bindgen" --target-dir "$prefix/bindgen/target" "bindgen-cli@$bindgen"
rm -rf "$prefix/bindgen/target"
mkdir -p "$prefix/out"
for header in "$source"/src/mlx-c/mlx/c/*.h; do echo "#include \"$header\""; done >"$prefix/out/all.h"
LIBCLANG_PATH=$prefix/python/clang/native "$prefix/bindgen/bin/bindgen" "$prefix/out/all.h" \
  --rust-target 1.73.0 --blocklist-function 'malloc|realloc' --blocklist-type 'float16_t|bfloat16_t' \
  --output "$prefix/out/bindings.rs" -- \
  -I"$source/src/mlx-c" -isystem "$(c++ -print-file-name=include)" -include "$PWD/$here/half.h"
cat "$here/types.rs" >>"$prefix/out/bindings.rs"

cat >"$prefix/cargo.toml" <<TOML
# Written by $here/setup.sh: the override of mlx-sys's build script on this machine.
[target.$triple]
rustflags = ["-C", "link-arg=-Wl,-rpath,$prefix/python/mlx/lib"]
rustdocflags = ["-C", "link-arg=-Wl,-rpath,$prefix/python/mlx/lib"]

[target.$triple.mlx]
rustc-link-search = ["native=$prefix/mlx-c", "native=$prefix/python/mlx/lib"]
rustc-link-lib = ["static=mlxc", "dylib=mlx", "dylib=stdc++"]
rustc-env = { OUT_DIR = "$prefix/out" }
TOML
echo "$stamp" >"$prefix/stamp"
