"""Every development task, as a nox session.

``nox -l`` lists the sessions, ``nox -s check`` runs one of them, and arguments after ``--`` are passed to its program.
``nox --no-venv -s check`` runs in the active environment instead of in one made for the session.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["check", "test"]

TOOLS = Path(os.environ.get("GENPLUG_TOOLS", Path.home() / ".cache/genplug/tools"))
"""The directory that ``.ci/tools`` and ``tests/cluster/build`` install into."""

IN_CI = bool(os.environ.get("CI"))
LOCK = "requirements-dev.lock"
"""The versions of all development dependencies and the hashes of their files."""
AUDITED = ("deploy/image/requirements.lock", "deploy/image/build.lock", LOCK)
"""The lock files whose versions ``audit`` checks."""

BUILD = Path("build")
DIST = Path("dist")

NEEDS_SETUP = ("browser", "cluster", "fuse", "helm", "image", "packages", "podman", "root", "shells")
"""The pytest markers of tests that need root or programs from outside PyPI."""

PROSE = {
    "*.md": (
        "CHANGELOG.md",
        "CODE_OF_CONDUCT.md",
        "CONTRIBUTING.md",
        "MAINTAINERS.md",
        "README.md",
        "RELEASING.md",
        "SECURITY.md",
        "changelog.d",
        "deploy",
        "docs",
        "tests",
    ),
    # Comments and docstrings.
    "*.py": ("benchmarks", "deploy", "docs", "genplug", "noxfile.py", "tests"),
}
"""Where ``check`` and ``prose`` check the wording, by the pattern of file names."""


def install(session: nox.Session) -> None:
    """Install the locked versions and this checkout into the session's environment.

    Each file is compared with its hash in the lock file. ``--no-venv`` uses what is installed already.
    """
    if session.virtualenv.is_sandboxed:
        session.install("--require-hashes", "--requirement", LOCK)
        session.install("--no-deps", "--no-build-isolation", "--editable", ".")


def find_tool(session: nox.Session, name: str, without: str) -> str | None:
    """Return the path of a program that PyPI does not have.

    Without the program the session fails in CI; elsewhere it logs what is left out and returns None.
    """
    path = shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")
    if path is None:
        message = f"{without}: {name} is not installed; run .ci/tools, or put {name} on the PATH"
        if IN_CI:
            session.error(message)
        session.warn(message)
    return path


def require_root(session: nox.Session) -> None:
    """Fail the session when it does not run as root."""
    if os.geteuid() != 0:
        session.error(f"nox -s {session.name} creates device nodes and mounts: run it as root")


def run_pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest so that a test with a missing need fails instead of being skipped."""
    session.run("pytest", *arguments, *session.posargs, env={"CI": "true"})


@nox.session
def check(session: nox.Session) -> None:
    """Lint, check types, import directions, generated files, spelling and prose; needs no root."""
    install(session)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports")
    session.run("validate-pyproject", "pyproject.toml")
    check_generated_files(session)
    check_changelog(session)
    check_prose(session)


def check_generated_files(session: nox.Session) -> None:
    """Fail when a generated file differs from what its generator writes."""
    session.run("python", "-m", "genplug.kubelet.api.regenerate", "--check")
    session.run("python", "docs/generate.py", "--check")
    session.run("python", "docs/generate_completions.py", "--check")
    session.run("python", "docs/generate_figures.py", "--check")
    session.run("python", "deploy/seccomp/record.py", "--check")
    if find_tool(session, "helm4", without="not comparing the chart's generated files"):
        session.run("python", "deploy/helm/generate.py", "--check")


def check_changelog(session: nox.Session) -> None:
    """Fail when a file in ``changelog.d`` has a name or a type that towncrier does not know."""
    session.run("towncrier", "build", "--draft", "--version", "next", silent=True)


def check_prose(session: nox.Session) -> None:
    """Check all spelling, and the wording of the files in ``PROSE``; a warning of Vale does not fail the session."""
    session.run("codespell")
    vale = find_tool(session, "vale", without="not checking the wording")
    if vale is None:
        return
    for pattern, paths in PROSE.items():
        if paths:
            session.run(vale, "--no-global", f"--glob={pattern}", *paths, external=True)


@nox.session
def prose(session: nox.Session) -> None:
    """Check spelling and wording; arguments after ``--`` are the files whose wording to check."""
    install(session)
    if not session.posargs:
        check_prose(session)
    elif vale := find_tool(session, "vale", without="not checking the wording"):
        session.run(vale, "--no-global", *session.posargs, external=True)


@nox.session
def lock(session: nox.Session) -> None:
    """Write the newest versions of the development dependencies to requirements-dev.lock."""
    if session.virtualenv.is_sandboxed:
        session.install("uv")
    options = ("--upgrade", "--universal", "--python-version", "3.11", "--extra", "dev", "--extra", "mutation")
    output = (
        "--generate-hashes",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--no-emit-find-links",
    )
    session.run("uv", "pip", "compile", *options, *output, "pyproject.toml", "--output-file", LOCK, silent=True)


@nox.session(name="format")
def format_code(session: nox.Session) -> None:
    """Format the code and apply the safe fixes of ruff."""
    install(session)
    # The first run breaks long lines, which ruff check reports and cannot fix; the second formats the fixes.
    session.run("ruff", "format", ".")
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")


@nox.session
def test(session: nox.Session) -> None:
    """Run the tests that need neither root nor programs from outside PyPI."""
    install(session)
    run_pytest(session, "-m", f"not ({' or '.join(NEEDS_SETUP)})")


@nox.session(name="test-root")
def test_root(session: nox.Session) -> None:
    """Run the tests on real device nodes, mounts and hanging files; needs root."""
    require_root(session)
    install(session)
    run_pytest(session, "-m", "(root or fuse) and not (cluster or image or podman)")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz everything that genplug reads; ``-- --minutes N --target T --record FILE``; ``-- --help`` lists the rest."""
    install(session)
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def chart(session: nox.Session) -> None:
    """Test the chart and the completion scripts, and compare the chart's generated files; needs .ci/tools."""
    install(session)
    if not find_tool(session, "helm4", without="cannot test the chart"):
        session.error("run .ci/tools first")
    session.run("python", "deploy/helm/generate.py", "--check")
    run_pytest(session, "-m", "apparmor or helm or shells")


@nox.session
def image(session: nox.Session) -> None:
    """Build the image and test it; needs root and .ci/tools."""
    require_root(session)
    install(session)
    run_pytest(session, "-m", "image or podman")


@nox.session
def browser(session: nox.Session) -> None:
    """Test the status page in a browser; needs .ci/tools."""
    install(session)
    run_pytest(session, "-m", "browser")


@nox.session
def cluster(session: nox.Session) -> None:
    """Test genplug and its chart on real Kubernetes clusters; needs root, .ci/tools and tests/cluster/build."""
    require_root(session)
    install(session)
    run_pytest(session, "-m", "cluster")


@nox.session(name="soak-cluster")
def soak_cluster(session: nox.Session) -> None:
    """Change a real cluster at random for thirty minutes and compare it with a model; ``-- --minutes 5``.

    Needs root, .ci/tools and tests/cluster/build.
    """
    require_root(session)
    install(session)
    session.run("python", "-m", "tests.cluster.soak", *session.posargs)


@nox.session(name="dra-trial")
def dra_trial(session: nox.Session) -> None:
    """Measure Dynamic Resource Allocation over many repeats on a real cluster; ``-- kubelet`` runs one of the trials.

    Needs root, .ci/tools and tests/cluster/build.
    """
    require_root(session)
    install(session)
    session.run("python", "-m", "tests.cluster.dra_trial", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into build/docs; a broken internal link is an error."""
    install(session)
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-b", "html", "docs", str(BUILD / "docs"), *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure genplug against its budgets; ``nox -s bench -- --quick`` only shows that every benchmark runs."""
    install(session)
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Report known vulnerabilities of the locked versions; fail if the database cannot be reached."""
    install(session)
    session.run("python", "deploy/packages/audit.py", *AUDITED)


@nox.session
def soak(session: nox.Session) -> None:
    """Run the agent against random changes and faults; ``-- --minutes 120`` sets the duration; needs root."""
    require_root(session)
    install(session)
    session.run("python", "-m", "genplug.testing.soak", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests of ``test`` and report which branches they execute, also in the processes that they start."""
    install(session)
    session.run("coverage", "erase")
    measured = ("coverage", "run", "-m", "pytest", "-m", f"not ({' or '.join(NEEDS_SETUP)})")
    session.run(*measured, *session.posargs, env={"CI": "true"})
    session.run("coverage", "combine")
    session.run("coverage", "html", "--directory", str(BUILD / "coverage"), "--quiet")
    session.run("coverage", "report", "--skip-covered", "--skip-empty")


@nox.session
def mutation(session: nox.Session) -> None:
    """Mutate the modules that decide and run their tests; ``-- MODULE --record FILE`` selects and records."""
    install(session)
    session.run("python", "-m", "tests.mutation", *session.posargs)


@nox.session
def changelog(session: nox.Session) -> None:
    """Show the next changelog section; ``-- --compare-with origin/main`` also requires a fragment for this branch."""
    install(session)
    session.run("towncrier", "build", "--draft", "--version", "next")
    if session.posargs:
        session.run("towncrier", "check", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the sdist into dist, then run genplug from the wheel in a new environment."""
    install(session)
    build_package(session)


def build_package(session: nox.Session) -> None:
    """Write the wheel and the sdist to dist; fail when the program in the wheel does not start."""
    session.run("python", "deploy/packages/build_wheel.py", "--output", str(DIST))
    with tempfile.TemporaryDirectory() as directory:
        environment = Path(directory) / "venv"
        session.run(sys.executable, "-m", "venv", str(environment), external=True)
        wheel = (DIST / f"genplug-{read_version()}-py3-none-any.whl").resolve()
        session.run(str(environment / "bin/pip"), "install", "--quiet", str(wheel), external=True)
        # In another directory, so that the package comes from the wheel and not from the checkout.
        with session.chdir(directory):
            for arguments in (["--version"], ["schema"], ["init", "--list"]):
                session.run(str(environment / "bin/genplug"), *arguments, external=True, silent=True)


def read_version() -> str:
    """Return the version that ``genplug/__init__.py`` has."""
    (version,) = re.findall(r'^__version__ = "(.*)"$', Path("genplug/__init__.py").read_text(), re.MULTILINE)
    return str(version)


@nox.session
def packages(session: nox.Session) -> None:
    """Build into dist the packages for operating systems and the single-file programs; needs .ci/tools."""
    install(session)
    build_package(session)
    build_system_packages(session)


def build_system_packages(session: nox.Session) -> None:
    """Write the packages and the single-file programs of each Python and architecture to dist."""
    wheel = str(DIST / f"genplug-{read_version()}-py3-none-any.whl")
    for python in ("3.11", "3.12", "3.13"):
        for arch in ("amd64", "arm64"):
            options = ("--python", python, "--arch", arch, "--output", str(DIST))
            session.run("python", "deploy/packages/build.py", "--wheel", wheel, *options)


@nox.session
def release(session: nox.Session) -> None:
    """Build into dist what a release publishes; ``-- vX.Y.Z`` is the tag; needs root and .ci/tools.

    These are the wheel, the sdist, the packages for operating systems, the single-file programs, the chart, an image
    archive per architecture, their SBOMs, the provenance of all files and their checksums. The notes are in build.
    """
    require_root(session)
    version = read_version()
    if session.posargs != [f"v{version}"]:
        session.error(f"expected the tag v{version} of genplug/__init__.py, found {session.posargs}")
    if session.run("git", "status", "--porcelain", "--untracked-files=no", external=True, silent=True):
        session.error("expected a checkout without changes, because the provenance names the commit: commit them first")
    helm = find_tool(session, "helm4", without="cannot package the chart")
    if helm is None:
        session.error("run .ci/tools first")
    notes = re.search(rf"^## {re.escape(version)}, .*\n(?P<text>(?:(?!## ).*\n?)*)", read_changelog(), re.MULTILINE)
    if notes is None:
        session.error(f"CHANGELOG.md has no section for {version}: run towncrier build --version {version}")
    install(session)
    shutil.rmtree(DIST, ignore_errors=True)
    build_package(session)
    build_system_packages(session)
    BUILD.mkdir(exist_ok=True)
    (BUILD / "notes.md").write_text(notes["text"].lstrip())
    package_chart(session, helm)
    for arch in ("amd64", "arm64"):
        archive = str(DIST / f"genplug-image-{version}-{arch}.tar")
        session.run("deploy/image/build.sh", "--fresh", "--arch", arch, "--output", archive, external=True)
        bom = str(session.run("python", "deploy/image/sbom.py", archive, silent=True))
        Path(f"{archive}.cdx.json").write_text(bom)
        check_wheel(session, bom)
    session.run("python", "deploy/packages/provenance.py", "--tag", f"v{version}", "--dist", str(DIST))


def package_chart(session: nox.Session, helm: str) -> None:
    """Write the chart to dist; helm copies times and modes of files, so that they are set first."""
    with tempfile.TemporaryDirectory() as directory:
        chart = Path(directory) / "genplug"
        shutil.copytree("deploy/helm/genplug", chart)
        for path in chart.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.utime(path, (0, 0))
        session.run(helm, "package", str(chart), "--destination", str(DIST), external=True)


def check_wheel(session: nox.Session, bom: str) -> None:
    """Fail when the SBOM of an image names another wheel of genplug than the wheel in dist."""
    (component,) = (part for part in json.loads(bom)["components"] if part["name"] == "genplug")
    digest = hashlib.sha256((DIST / f"genplug-{read_version()}-py3-none-any.whl").read_bytes()).hexdigest()
    if component["hashes"] != [{"alg": "SHA-256", "content": digest}]:
        session.error(f"expected the wheel {digest} of dist in the image, found {component['hashes']}")


def read_changelog() -> str:
    """Return the text of the changelog."""
    return Path("CHANGELOG.md").read_text()
