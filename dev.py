#!/usr/bin/env python3
"""Build, run, test and lint ptwalk from a checkout: `python3 dev.py demo`, `python3 dev.py test`.

Standard library only. Makes .venv, installs what the build needs (through apt when it is root and
something is missing; otherwise it stops with the line to type), and lets ninja decide what to
compile. The Python sources and the extension are used in place. It does not make wheels: pip does.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
SOURCES = f"{ROOT / 'python'}\n"
MINIMUM_PYTHON = (3, 11)
TSAN_BITS = 28  # of mmap randomness; with more, GCC 12's ThreadSanitizer may not start
SANITIZERS = {"address": "asan", "thread": "tsan"}
FUZZ_INPUTS = {"programs": "programs", "executors": "programs", "kernels": "kernels"}
"""The fuzz targets, and which inputs under tests/data/fuzz they take."""


def stop(message: str) -> NoReturn:
    """Print `message` on stderr and exit with status 1."""
    print(f"dev.py: {message}", file=sys.stderr, flush=True)
    sys.exit(1)


def call(*command: str | Path, env: dict[str, str] | None = None) -> int:
    """Print a command, run it in the repository with .venv/bin first in PATH, return its status."""
    words = [str(word) for word in command]
    print("$", shlex.join(w.removeprefix(f"{ROOT}/") for w in words), flush=True)
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.call(words, cwd=ROOT, env={**os.environ, "PATH": path, **(env or {})})


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Do as `call`, but stop when the command fails."""
    if status := call(*command, env=env):
        stop(f"{Path(command[0]).name} failed with status {status}")


def succeeds(*command: str | Path) -> bool:
    """Whether a command succeeds; its output is dropped."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# What the machine must have: a compiler, Python's headers, ensurepip, and doctest for the tests.


def compiler() -> str | None:
    """Return the C++ compiler that CMake will take, or None."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next(filter(None, map(shutil.which, names)), None)


def has_header(name: str) -> bool:
    """Whether the compiler finds the header `name`."""
    cxx = compiler()
    return cxx is not None and succeeds(cxx, "-E", "-x", "c++", "-include", name, os.devnull)


def missing_packages() -> tuple[list[str], list[str]]:
    """Return the Debian packages without which nothing works, and those only the tests want."""
    python = f"python3.{sys.version_info.minor}"
    needed = []
    if compiler() is None:
        needed.append("g++")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        needed.append(f"{python}-dev")
    if importlib.util.find_spec("ensurepip") is None:
        needed.append(f"{python}-venv")
    return needed, [] if has_header("doctest/doctest.h") else ["doctest-dev"]


def install_packages() -> None:
    """Install the missing Debian packages when root; without root say what to type."""
    needed, wanted = missing_packages()
    if not needed + wanted:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *needed, *wanted]
    by_hand = f"sudo apt-get update && sudo {shlex.join(install)}"
    if shutil.which("apt-get") is None:
        by_hand = f"install what Debian calls {' '.join(needed + wanted)}"
    elif os.geteuid() == 0:
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        call("apt-get", "update", env=env)
        call(*install, env=env)
        importlib.invalidate_caches()
        needed, wanted = missing_packages()
    if needed:
        stop(f"{' '.join(needed)} missing; type:\n  {by_hand}")
    if wanted:
        print(f"dev.py: {' '.join(wanted)} missing, no C++ tests; type:\n  {by_hand}", flush=True)


# The virtual environment: the build tools, numpy, and the dependency groups a command needs.


def requirements(groups: Sequence[str]) -> list[str]:
    """Return the run-time dependencies and those of the groups (PEP 735; Debian's pip is older)."""
    import tomllib  # not at the top: an older Python must get as far as the version check

    with (ROOT / "pyproject.toml").open("rb") as file:
        pyproject = tomllib.load(file)

    def members(group: str) -> Iterator[str]:
        for item in pyproject["dependency-groups"][group]:
            if isinstance(item, str):
                yield item
            else:
                yield from members(item["include-group"])

    found = [*pyproject["project"]["dependencies"]]
    for group in groups:
        found.extend(members(group))
    return sorted(set(found))


def is_current(stamp: Path, content: str) -> bool:
    """Whether `stamp` holds `content`."""
    return stamp.exists() and stamp.read_text() == content


def venv_works() -> bool:
    """Whether .venv is whole; a moved one has scripts that name the old place."""
    paths = VENV.glob("lib/python3.*/site-packages/ptwalk-checkout.pth")
    return any(is_current(path, SOURCES) for path in paths) and succeeds(
        PYTHON, "-m", "pip", "--version"
    )


def make_venv(groups: Sequence[str]) -> None:
    """Bring .venv up to date with the requirements of `groups`, and put the sources on its path."""
    wanted = requirements(groups)
    stamp = VENV / f"installed-{'-'.join(groups)}"
    content = "\n".join([str(ROOT), *wanted])
    if PYTHON.exists() and is_current(stamp, content):
        return
    install_packages()
    if not venv_works():
        run(sys.executable, "-m", "venv", "--clear", VENV)
        (purelib() / "ptwalk-checkout.pth").write_text(SOURCES)
        script = VENV / "bin" / "ptwalk"
        script.write_text(
            f"#!{PYTHON}\nimport sys\nfrom ptwalk.cli import main\n\n"
            'if __name__ == "__main__":  # workers of a campaign import it again\n'
            "    sys.exit(main())\n"
        )
        script.chmod(0o755)
    run(PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)
    stamp.write_text(content)


def purelib() -> Path:
    """Return the site-packages directory of .venv."""
    return next(VENV.glob("lib/python3.*/site-packages"))


# The build: one directory per preset under build/.


def build(preset: str, target: str = "all", *more: str) -> Path | None:
    """Compile what changed and return the C++ tests' program, None where doctest is missing."""
    directory = ROOT / "build" / preset
    options = [*more]
    if preset in ("dev", "mutants"):
        cmake_files = purelib() / "pybind11" / "share" / "cmake" / "pybind11"
        options += [
            "-DPTWALK_EXTENSION=ON",
            f"-DPython_EXECUTABLE={PYTHON}",
            f"-Dpybind11_DIR={cmake_files}",
        ]
    stamp, tests = directory / "configured", directory / "ptwalk_tests"
    content = "\n".join([str(ROOT), *options, (ROOT / "CMakePresets.json").read_text()])
    if not is_current(stamp, content):
        run("cmake", "--preset", preset, "--fresh", *options)
        stamp.write_text(content)
    elif target == "all" and not tests.exists():
        run("cmake", directory)  # doctest may have been installed since
    run("cmake", "--build", directory, "--target", target)
    return tests if tests.exists() else None


def mutants_package() -> Path:
    """Build the package with planted bugs beside the normal one; return where it is imported from.

    The Python sources are the same files, by links; only the extension differs.
    """
    build("mutants", "_core")
    package = ROOT / "build" / "mutants" / "python" / "ptwalk"
    for source in (ROOT / "python" / "ptwalk").iterdir():
        link = package / source.name
        if source.suffix != ".so" and source.name != "__pycache__" and not link.exists():
            link.symlink_to(source)
    return package.parent


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Let one dev.py at a time install and build in this checkout."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# The commands. Each returns an exit status and passes what it does not know on.


def demo(arguments: list[str]) -> int:
    """Show the main job: read a live process, write-protect it, tell the seed's story."""
    with lock():
        make_venv(["build"])
        build("dev", "_core")
    return call(PYTHON, "-m", "ptwalk", "demo", *arguments)


def bench(arguments: list[str]) -> int:
    """Measure ptwalk against the machine's limit and against peers, installed for it."""
    with lock():
        make_venv(["build", "bench"])
        build("dev", "_core")
    return call(PYTHON, "-m", "ptwalk", "bench", *arguments)


def instructions() -> int:
    """Count by callgrind the instructions that each leaf kernel takes for an entry."""
    if shutil.which("valgrind") is None:
        stop("valgrind is missing; type: sudo apt-get install valgrind")
    with lock():
        make_venv(["build"])
        build("dev", "_core")
        build("bench", "count_instructions")
    names = subprocess.check_output(
        [PYTHON, "-c", "import ptwalk; print(*ptwalk.kernels())"], text=True
    )
    script = ROOT / "benchmarks" / "native" / "count_instructions.py"
    return call(PYTHON, script, ROOT / "build" / "bench" / "count_instructions", *names.split())


def test(arguments: list[str], sanitize: str | None) -> int:
    """Run the C++ tests and pytest; with --sanitize the C++ tests alone, under the sanitizer."""
    with lock():
        make_venv(["build", "test"])
        program = build(SANITIZERS[sanitize] if sanitize else "dev")
    failed = replay_fuzz_inputs(sanitize) != 0
    if program is not None:
        failed |= call(*starter(sanitize), program, *(arguments if sanitize else [])) != 0
    else:
        print("C++ tests: not run, doctest is missing (Debian: doctest-dev)", flush=True)
        failed |= sanitize is not None or os.environ.get("CI") == "true"
    if not sanitize:
        failed |= call(PYTHON, "-m", "pytest", *arguments) != 0
    return int(failed)


def starter(sanitize: str | None) -> list[str]:
    """Return what starts a program: older ThreadSanitizers need less address randomness."""
    random_bits = Path("/proc/sys/vm/mmap_rnd_bits")
    if sanitize == "thread" and random_bits.exists() and int(random_bits.read_text()) > TSAN_BITS:
        return ["setarch", "-R"]
    return []


def fuzz_inputs(target: str) -> Path:
    """Return the directory of the inputs that are kept for a fuzz target."""
    return ROOT / "tests" / "data" / "fuzz" / FUZZ_INPUTS[target]


def replay_fuzz_inputs(sanitize: str | None) -> int:
    """Run the inputs that are kept through each fuzz target, built without a fuzzer."""
    programs = ROOT / "build" / (SANITIZERS[sanitize] if sanitize else "dev")
    start = starter(sanitize)
    statuses = [call(*start, programs / f"fuzz_{name}", fuzz_inputs(name)) for name in FUZZ_INPUTS]
    return int(any(statuses))


def libfuzzer_compiler() -> str:
    """Return a clang that has libFuzzer; without one say what to type."""
    names = [os.environ.get("CXX", ""), "clang++", *(f"clang++-{n}" for n in range(30, 13, -1))]
    for name in filter(shutil.which, names):
        with tempfile.TemporaryDirectory() as directory:
            source, program = Path(directory, "empty.cpp"), Path(directory, "empty")
            source.write_text(
                'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) '
                "{ return 0; }\n"
            )
            if succeeds(name, "-fsanitize=fuzzer", source, "-o", program):
                return name
    stop(
        "no clang++ with libFuzzer; type:\n"
        "  sudo apt-get install -y clang-14 libclang-rt-14-dev   # Debian 12; later ones: clang"
    )


def fuzz(target: str, arguments: list[str], *, sanitize: bool) -> int:
    """Build a fuzz target with libFuzzer and run it; it goes on from where it was stopped."""
    preset = "fuzz-asan" if sanitize else "fuzz"
    with lock():
        make_venv(["build"])
        build(preset, f"fuzz_{target}", f"-DCMAKE_CXX_COMPILER={libfuzzer_compiler()}")
    kept = ROOT / "build" / "fuzz-corpus" / target
    kept.mkdir(parents=True, exist_ok=True)
    given = [word for word in arguments if not word.startswith("-")]
    inputs = given or [str(kept), str(fuzz_inputs(target))]
    options = [word for word in arguments if word.startswith("-")]
    program = ROOT / "build" / preset / f"fuzz_{target}"
    return call(program, f"-artifact_prefix={kept.parent}/{target}-", *options, *inputs)


def compile_only(target: str) -> int:
    """Build the extension, the C++ tests or both."""
    with lock():
        make_venv(["build"])
        build("dev", target)
    return 0


def oracle() -> int:
    """Let other people's page-table walkers read the tables, and the benchmark's peers agree."""
    with lock():
        make_venv(["build", "test", "bench"])
        build("dev", "_core")
    tests = [
        "tests/test_foreign_walkers.py",
        "tests/test_bench_peers.py",
        "tests/test_bench_plots.py",
    ]
    return call(PYTHON, "-m", "pytest", *tests)


def mutants(arguments: list[str]) -> int:
    """Build with planted bugs, then tell how campaigns and the C++ unit tests find each."""
    with lock():
        make_venv(["build"])
        tests, package = build("mutants"), mutants_package()
    options: list[str | Path] = ["--tests", tests] if tests else []
    environment = {"PYTHONPATH": str(package)}
    return call(PYTHON, "-m", "ptwalk.fuzz.mutants", *options, *arguments, env=environment)


def lint() -> int:
    """Run ruff, mypy, stubtest and clang-format; all of them, also when one complains."""
    with lock():
        make_venv(["build", "lint"])
        build("dev", "_core")
    sources = sorted((ROOT / "cpp").rglob("*.[ch]pp"))
    stubtest = ["stubtest", "ptwalk._core", "--allowlist", "tests/stubtest_allowlist.txt"]
    statuses = [
        call("ruff", "check"),
        call("ruff", "format", "--check"),
        call("mypy"),
        call(*stubtest, env={"MYPYPATH": str(ROOT / "python")}),
        call("clang-format", "--dry-run", "--Werror", *sources),
    ]
    return int(any(statuses))


def doctor() -> int:
    """Say what this machine has and lacks, and what to type; change nothing."""
    needed, wanted = missing_packages()
    groups = sorted(path.name.removeprefix("installed-") for path in VENV.glob("installed-*"))
    kernel = platform.uname()
    facts = {
        "Python": f"{platform.python_version()} at {sys.executable}",
        "C++ compiler": compiler() or "none",
        "needed, missing": " ".join(needed) or "nothing",
        "for the C++ tests, missing": " ".join(wanted) or "nothing",
        "to install": "apt-get, as root" if os.geteuid() == 0 else "by hand, not root",
        ".venv": ", ".join(groups) or "not made yet",
        "builds": ", ".join(sorted(p.parent.name for p in ROOT.glob("build/*/configured")))
        or "none yet",
        "kernel": f"{kernel.system} {kernel.release} {kernel.machine}",
    }
    for name, fact in facts.items():
        print(f"{name:28}{fact}")
    if needed + wanted:
        print(f"type: sudo apt-get install -y {' '.join(needed + wanted)}")
    return int(bool(needed))


def main() -> int:
    """Parse the command line and run one command."""
    if sys.version_info < MINIMUM_PYTHON:
        stop(f"Python {platform.python_version()} is too old; ptwalk needs 3.11 or later")
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="the main job; further arguments go to `ptwalk demo`")
    commands.add_parser("bench", help="measure; further arguments go to `ptwalk bench`")
    tests = commands.add_parser("test", help="C++ and Python tests; further arguments go to pytest")
    tests.add_argument(
        "--sanitize",
        nargs="?",
        const="address",
        choices=SANITIZERS,
        help="the C++ tests under ASan+UBSan or TSan; further arguments go to doctest",
    )
    fuzzer = commands.add_parser(
        "fuzz", help="a fuzz target under libFuzzer; further arguments, behind --, go to it"
    )
    fuzzer.add_argument("target", nargs="?", default="programs", choices=FUZZ_INPUTS)
    fuzzer.add_argument("--sanitize", action="store_true", help="with ASan and UBSan")
    target = commands.add_parser("build", help="compile what changed and run nothing")
    target.add_argument("target", nargs="?", default="all", help="_core, ptwalk_tests or all")
    commands.add_parser("instructions", help="of each leaf kernel, counted by callgrind")
    commands.add_parser(
        "mutants", help="a build with planted bugs, and what finds each; more goes to the report"
    )
    commands.add_parser("oracle", help="peers, installed for it, read the tables and agree")
    commands.add_parser("lint", help="ruff, mypy, stubtest, clang-format")
    commands.add_parser("doctor", help="what this machine has and lacks")
    known, rest = parser.parse_known_args()
    if known.command in ("demo", "bench", "mutants"):
        return {"demo": demo, "bench": bench, "mutants": mutants}[known.command](rest)
    if known.command == "test":
        return test(rest, known.sanitize)
    if known.command == "fuzz":
        return fuzz(known.target, [w for w in rest if w != "--"], sanitize=known.sanitize)
    if rest:
        parser.error(f"{known.command} takes no arguments, got {shlex.join(rest)}")
    if known.command == "build":
        return compile_only(known.target)
    plain = {"lint": lint, "oracle": oracle, "doctor": doctor, "instructions": instructions}
    return plain[known.command]()


if __name__ == "__main__":
    sys.exit(main())
