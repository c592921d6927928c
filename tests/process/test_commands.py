"""The commands in a Python that their user cannot read in full: a sentence, and no traceback."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_fixture import PATIENCE

PACKAGES = ("lbadaptor", "monitor", "itsdangerous", "msgspec", "click")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")


@pytest.fixture
def site_packages() -> Iterator[Path]:
    """A copy that everybody can read."""
    with tempfile.TemporaryDirectory(prefix="lbt-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        for package in PACKAGES:
            shutil.copytree(Path(sysconfig.get_path("purelib"), package), Path(folder, package))
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        yield Path(folder)


def run(site_packages: Path, command: str) -> subprocess.CompletedProcess[str]:
    """As the installed command does, in Debian's Python."""
    code = f"import sys; sys.path.insert(0, {str(site_packages)!r}); sys.argv[0] = '/opt/bin/{command}'\n"
    nobody = pwd.getpwnam("nobody")
    return subprocess.run(
        [
            *("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
            *(f"{sys.base_prefix}/bin/python3", "-S", "-c"),
            f"{code}from lbadaptor.commands import {command}; {command}()",
            "--version",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd="/",
        check=False,
    )


@pytest.mark.parametrize("command", ["lbmonitor", "lbctl"])
@pytest.mark.parametrize(
    "place", ["msgspec", "msgspec/__init__.py", "monitor", "monitor/__init__.py", "itsdangerous"]
)
def test_what_cannot_be_read_is_named(site_packages: Path, command: str, place: str) -> None:
    (site_packages / place).chmod(0o600)
    done = run(site_packages, command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{command}: the user nobody cannot read {site_packages / place}; `chmod -R a+rX ")
    assert done.stderr.count("\n") == 1


def test_a_package_that_is_missing_is_named(site_packages: Path) -> None:
    shutil.rmtree(site_packages / "msgspec")
    done = run(site_packages, "lbctl")
    assert done.returncode == 1
    assert done.stderr.startswith("lbctl: the package 'msgspec' is missing in ")
    assert done.stderr.count("\n") == 1
