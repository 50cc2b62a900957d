"""``python -m tests.versions lowest newest next``: the suite's short part with other versions.

``lowest`` installs the lowest version of every requirement that pyproject.toml allows, ``newest``
the newest, each with the libraries they ask for, into an environment of its own; ``next`` puts the
coming Hydra and OmegaConf before those of this one. ``--keep-torch`` takes torch from this one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
NEXT = ["hydra-core==1.4.0rc3", "omegaconf==2.4.1rc1"]
SHORT = [
    "tests/config/test_compose.py",
    "tests/test_assemble.py",
    "tests/test_launchers.py",
    "tests/optimizer/test_config.py",
    "tests/data/test_population.py",
]
EXTRAS = ["tests/logger", "tests/data/test_hub.py", "tests/test_export.py"]
"""What the extras are for, where these have other versions too."""
CUDA = ("nvidia", "torch==", "triton")
"""How packages begin that come with torch."""


def read_requirements() -> str:
    """Read the requirements, and those of the extras, one a line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = [
        *project["dependencies"],
        *(name for key in extras if key not in ("dev", "ray") for name in extras[key]),
    ]
    return "\n".join(name for name in names if not name.startswith("truerisk"))


def make_environment(folder: Path) -> Path:
    """Make an environment that finds this one's packages after its own; gives its Python."""
    venv.create(folder, symlinks=True)
    place = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    here = [path for path in sys.path if path.endswith("site-packages")]
    (place / "own.pth").write_text(f"{ROOT / 'src'}\n")
    # a line that is code: .pth files in folders so added are not read twice
    (place / "zzz.pth").write_text(f"import sys; sys.path.extend({here!r})\n")
    return folder / "bin" / "python"


def run(*command: object) -> None:
    """Run a command, whose words are only shown in the error that it ends in."""
    words = [str(part) for part in command]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)


def install(python: Path, which: str, keep_torch: bool) -> None:
    """Install versions: the coming pair, or what uv finds for all requirements."""
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    pip += ["--disable-pip-version-check"]
    if which == "next":
        run(*pip, "--no-deps", *NEXT)
        return
    run(*pip, "uv")
    asked, found = python.parent / "asked.txt", python.parent / "found.txt"
    asked.write_text(read_requirements())
    order = {"lowest": "lowest-direct", "newest": "highest"}[which]
    uv = [python, "-m", "uv", "pip"]
    run(*uv, "compile", "--quiet", "--resolution", order, asked, "--output-file", found)
    lines = [line for line in found.read_text().splitlines() if "==" in line]
    if keep_torch:
        lines = [line for line in lines if not line.startswith(CUDA)]
    found.write_text("\n".join(lines))
    print("\n".join(lines))
    run(*uv, "install", "--quiet", "--python", python, "--no-deps", "--requirement", found)


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.versions", description=__doc__)
    parser.add_argument("which", nargs="+", choices=["lowest", "newest", "next"])
    parser.add_argument("--keep-torch", action="store_true", help="the one of this environment")
    parser.add_argument("--tests", nargs="+", help="in place of the short part")
    given = parser.parse_args()
    failed = []
    for which in given.which:
        with TemporaryDirectory(prefix=f"truerisk-{which}-") as folder:
            python = make_environment(Path(folder))
            try:
                install(python, which, given.keep_torch)
            except subprocess.CalledProcessError as error:
                why = (error.stderr.strip().splitlines() or ["no word why"])[-1]
                print(f"versions: {which} could not be installed, and is not tested: {why}")
                continue
            tests = given.tests or (SHORT if which == "next" else [*SHORT, *EXTRAS])
            # a cache of its own: `--lf` of the usual run stays what it was
            options = ["-n", "2", "-p", "no:cacheprovider", "--disable-warnings"]
            command = [str(python), "-m", "pytest", *options, *tests]
            print(f"versions: {which}", flush=True)
            if subprocess.run(command, cwd=ROOT).returncode:
                failed.append(which)
    print(f"versions: failed with {', '.join(failed)}" if failed else "versions: none failed")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
