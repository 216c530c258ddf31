"""Check that the sdist and the wheel in dist/ hold what they should.

    python tools/check_dist.py

Standard library only. Ends with 1 and a list of the files if something is missing or should not be there.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"

PACKAGE = "continual"
# The folders and files beside the package that the tests need.
WITH_SDIST = ("benchmarks", "docs", "examples", "tests", "tools")
WITH_SDIST_FILES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "mkdocs.yml",
    "pyproject.toml",
)


def files_of(folders: Iterable[str]) -> set[str]:
    """Return the files of some folders of the repository, relative to it, without what Python compiled."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def only(pattern: str) -> Path:
    """Return the one file of dist/ with this pattern."""
    found = sorted(DIST.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        sys.exit(f"dist/ should hold one file {pattern}, and it holds {names}. Run `make dist`.")
    return found[0]


def differences(name: str, held: set[str], expected: set[str], *, exact: bool) -> list[str]:
    """Return a line for each missing file, and, if `exact`, for each file that should not be there."""
    lines = [f"{name} lacks {path}" for path in sorted(expected - held)]
    return lines + ([f"{name} should not hold {path}" for path in sorted(held - expected)] if exact else [])


def main() -> int:
    """Check both files; return the exit code."""
    wheel, sdist = only("*.whl"), only("*.tar.gz")
    package = files_of([PACKAGE])
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        in_sdist = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    constraints = {path.name for path in ROOT.glob("constraints*.txt")}
    beside = files_of(WITH_SDIST) | set(WITH_SDIST_FILES) | constraints
    wrong = [
        *differences(wheel.name, in_wheel, package, exact=True),
        *differences(sdist.name, in_sdist, package | beside, exact=False),
    ]
    print("\n".join(wrong) or f"{wheel.name} holds {len(in_wheel)} files and {sdist.name} {len(in_sdist)}: all there.")
    if wrong:
        print(
            f"{len(wrong)} files are wrong. See MANIFEST.in and [tool.setuptools] in pyproject.toml.", file=sys.stderr
        )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
