"""Writes the results of the benchmarks to `RESULTS.md`. Each benchmark owns the section between its two markers."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent
REPOSITORY = BENCH.parent
PIPELINE = REPOSITORY / "target" / "release" / "pipeline"
RESULTS = BENCH / "RESULTS.md"


def write_section(name, text):
    """Puts `text` between the markers of `name`, in place of what was there; the rest of the file stays."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    section = f"{begin}{text.rstrip()}\n{end}"
    old = RESULTS.read_text() if RESULTS.exists() else "# Measured\n"
    owned = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if owned.search(old):
        RESULTS.write_text(owned.sub(lambda _: section, old))
    else:
        RESULTS.write_text(f"{old.rstrip()}\n\n{section}")


def machine():
    """Describes the machine in a line."""
    name = platform.processor() or platform.machine()
    if sys.platform == "darwin":
        name = subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    elif Path("/proc/cpuinfo").exists():
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB memory, {platform.system()} {platform.release()}"
