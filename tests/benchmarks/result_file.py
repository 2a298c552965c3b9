"""What the benchmarks' files in results/ have in common: where a figure comes from, and whole files."""

import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("RP_BUILD", ROOT / "build/default")) / "bin/return-predictor"


def commit():
    """The source that the program was built from."""
    text = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    return text.split("(")[1].split(")")[0]


def machine(**versions):
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
        "load_average": os.getloadavg()[0],
    }


def command():
    """How this program was started; of absolute paths, which mean nothing elsewhere, the last part."""
    program = pathlib.Path(sys.argv[0]).resolve()
    arguments = [re.sub(r"(?<![^,=])/([^,/]+/)*(?=[^,/])", "", argument) for argument in sys.argv[1:]]
    return " ".join(["python", str(program.relative_to(ROOT)), *arguments])


def write(path, content, **versions):
    result = {
        "schema": 1,
        "command": command(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
        "machine": machine(**versions),
        **content,
    }
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)
