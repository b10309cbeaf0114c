#!/usr/bin/env bash
# Serves S3 on 127.0.0.1:PORT with an empty bucket `team` until standard input ends: serve.sh PORT
#
# SeaweedFS takes a dozen other ports that are always the same, so a second server waits until the first is gone. The
# keys are those of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
set -euo pipefail
weed=$(cd "$(dirname "$0")/../.." && pwd)/.seaweedfs/bin/weed
port=$1
exec 9>"${TMPDIR:-/tmp}/pipeline-seaweedfs.lock"
if command -v flock >/dev/null; then flock 9; fi
folder=$(mktemp -d)
# Whatever it tells of itself goes into its own folder.
cd "$folder"
"$weed" mini -dir="$folder" -ip=127.0.0.1 -ip.bind=127.0.0.1 -s3.port="$port" -bucket=team 9>&- </dev/null >log 2>&1 &
weed=$!
cat >/dev/null
kill -9 "$weed"
wait "$weed" 2>/dev/null || true
rm -rf "$folder"
