#!/usr/bin/env python3
"""Serves S3 on 127.0.0.1 with an empty bucket `team` until standard input ends.

When the server takes objects, this prints one line with two ports: the one that speaks S3, and the one that shows the
objects as plain files, at /buckets/team. The keys are those of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
"""

import contextlib
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

WEED = pathlib.Path(__file__).resolve().parents[2] / ".seaweedfs" / "bin" / "weed"
# The parts of the server; each listens on one port for HTTP and on one for gRPC.
PARTS = ("master", "volume", "filer", "s3")
# Another program may take a free port before the server does.
ATTEMPTS = 3
SECONDS = 60


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder, "log")
            ports = free_ports(2 * len(PARTS))
            with log.open("wb") as output:
                server = start(folder, ports, output)
            try:
                if comes_up(server, ports):
                    print(ports[PARTS.index("s3")], ports[PARTS.index("filer")], flush=True)
                    sys.stdin.read()
                    return
                print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
            finally:
                server.kill()
                server.wait()
    sys.exit("SeaweedFS did not come up; its log is above")


def free_ports(count):
    """Returns ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def start(folder, ports, output):
    command = [WEED, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
    for part, http, grpc in zip(PARTS, ports[: len(PARTS)], ports[len(PARTS) :], strict=True):
        command += [f"-{part}.port={http}", f"-{part}.port.grpc={grpc}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    # By default the server takes no objects if less than one hundredth of the disk is free.
    command += ["-volume.minFreeSpace=64MiB", "-volume.max=0", "-master.volumeSizeLimitMB=256"]
    return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def comes_up(server, ports):
    """Whether the server listens for S3, keeps an object, and makes the bucket."""
    filer = f"http://127.0.0.1:{ports[PARTS.index('filer')]}/buckets"
    s3 = ("127.0.0.1", ports[PARTS.index("s3")])
    for _ in range(SECONDS * 10):
        if server.poll() is not None:
            return False
        with contextlib.suppress(OSError):
            socket.create_connection(s3, timeout=1).close()
            # An object in another bucket leaves `team` empty.
            request("PUT", f"{filer}/other/ready", b"yes")
            request("POST", f"{filer}/team/")
            return True
        time.sleep(0.1)
    return False


def request(method, url, body=None):
    urllib.request.urlopen(urllib.request.Request(url, data=body, method=method), timeout=30).close()


if __name__ == "__main__":
    main()
