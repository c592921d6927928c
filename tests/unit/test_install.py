"""`apache/install.sh` sets up the same whatever is in the environment, and whatever lies in the checkout."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]

# Stands for Debian's Python: writes down how it is called, and makes an environment folder of copies of itself.
PYTHON = """#!/bin/sh
REAL -I - "$0" "$@" <<'END'
import json, os, shutil, sys
program, *words = sys.argv[1:]
with open(RECORD, "a") as record:
    record.write(json.dumps({"program": program, "words": words, "environment": dict(os.environ)}) + "\\n")
if words[1:3] == ["-m", "venv"]:
    os.makedirs(words[-1] + "/bin")
    shutil.copy(program, words[-1] + "/bin/python")
if words[-1].endswith("pip_settings.py"):
    print("export PIP_INDEX_URL='https://index.example/a b'")
if words[1:2] == ["-c"] and "setuptools" in words[2]:
    sys.exit(1)
END
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of the checkout that the script looks at, and those that a `pip install` of it leaves."""
    folder = tmp_path / "check out"
    (folder / "build" / "lib" / "lbadaptor").mkdir(parents=True)
    (folder / "lbadaptor.egg-info").mkdir()
    for name in ("lbadaptor", "monitor", "apache"):
        (folder / name).mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (folder / name).touch()
    shutil.copy(CHECKOUT / "apache" / "install.sh", folder / "apache")
    tools = tmp_path / "tools"
    tools.mkdir()
    text = PYTHON.replace("REAL", sys.executable).replace("RECORD", repr(str(tmp_path / "record")))
    programs = {
        "python": text,
        "dpkg-query": "#!/bin/sh\necho 'install ok installed'\n",
        "apt-get": "#!/bin/sh\n>apache2_1.deb\n",
        "dpkg-deb": "#!/bin/sh\nmkdir -p usr/sbin && cp /bin/true usr/sbin/a2enmod\n",
        "sleep": "#!/bin/sh\nexec /bin/sleep 0.05\n",  # a second between two looks is too long here
    }
    for name, content in programs.items():
        (tools / name).write_text(content)
        (tools / name).chmod(0o755)
    return folder


def install(checkout: Path, what: str, **environment: str) -> list[dict[str, Any]]:
    """Each call of Python, in order."""
    tools = checkout.parent / "tools"
    path = f"{tools}:/usr/bin:/bin"
    subprocess.run(
        ["apache/install.sh", what],
        cwd=checkout,
        env={"PATH": path, "PYTHON": str(tools / "python"), "HOME": "/nonexistent", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return [json.loads(line) for line in (checkout.parent / "record").read_text().splitlines()]


@pytest.mark.parametrize("what", ["demo", "machines-demo", "test", "bench"])
def test_what_the_caller_has_for_python_and_pip_does_not_direct_the_set_up(checkout: Path, what: str) -> None:
    hostile = {
        "PYTHONPATH": "/srv/shop",
        "PYTHONHOME": "/usr",
        "PYTHONSTARTUP": "/srv/shop/startup.py",
        "PYTHONOPTIMIZE": "2",
        "PYTHONUSERBASE": "/srv/shop/base",
        "PIP_TARGET": "/srv/shop",
        "PIP_USER": "1",
        "PIP_PREFIX": "/srv/shop",
        "PIP_REQUIRE_HASHES": "1",
        "PIP_CONSTRAINT": "/srv/shop/constraints.txt",
        "CDPATH": "/usr:/",
        "VIRTUAL_ENV": "/srv/shop/env",
    }
    kept = {"HTTPS_PROXY": "http://proxy.example:3128", "SSL_CERT_FILE": "/etc/ssl/shop.pem"}
    calls = install(checkout, what, **hostile, **kept)
    assert any(call["words"][2:] == ["venv", "--clear", ".venv"] for call in calls)
    installations = [call for call in calls if call["words"][1:3] == ["-m", "pip"]]
    assert [call["program"] for call in installations] == [".venv/bin/python"] * len(installations)
    assert len(installations) >= 3
    for call in calls:
        assert call["words"][0] == "-I", call["words"]
        assert not [name for name in call["environment"] if name.startswith("PYTHON")]
        assert kept.items() <= call["environment"].items()
    for call in installations:
        of_pip = {name: value for name, value in call["environment"].items() if name.startswith("PIP_")}
        assert of_pip == {"PIP_INDEX_URL": "https://index.example/a b", "PIP_CONFIG_FILE": os.devnull}


def test_leftovers_of_pip_in_the_checkout_are_not_installed(checkout: Path) -> None:
    listing = checkout.parent / "listing"
    python = checkout.parent / "tools" / "python"
    python.write_text(python.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\nls .venv/src >>'{listing}' 2>&1\n"))
    install(checkout, "demo")
    built = set(listing.read_text().splitlines())
    assert {"lbadaptor", "monitor", "setup.cfg"} <= built
    assert not {"build", "lbadaptor.egg-info"} & built
    assert not (checkout / ".venv" / "src").exists()


def pip_settings() -> Any:
    spec = importlib.util.spec_from_file_location("pip_settings", CHECKOUT / "apache" / "pip_settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "environment", "kept"),
    [
        ("", {}, {}),
        ("[global]\ncert = /etc/ssl/a.pem\n", {}, {"cert": "/etc/ssl/a.pem"}),
        ("[global]\nuser = true\nrequire-hashes = 1\n[install]\ntarget = /srv\n", {"PIP_PREFIX": "/srv"}, {}),
        (
            "[global]\nextra_index-url =\n  https://a\n  https://b\n",
            {},
            {"extra-index-url": "\nhttps://a\nhttps://b"},
        ),
        ("[install]\nproxy = b%s\n[global]\nproxy = a\n", {}, {"proxy": "b%s"}),
        ("[install]\nindex-url = a\n", {"PIP_INDEX_URL": "b"}, {"index-url": "b"}),
        ("[install]\nindex-url = a\n", {"PIP_INDEX_URL": ""}, {"index-url": "a"}),
        ("[wheel]\nindex-url = a\n", {"PIP_NO_INDEX": "1"}, {"no-index": "1"}),
    ],
)
def test_of_pips_settings_those_count_that_say_where_packages_come_from(
    text: str, environment: dict[str, str], kept: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "pip.conf").write_text(text)
    outside = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_DIRS": str(tmp_path / "xdg")}
    module = pip_settings()
    before = module.kept(outside, "/nowhere")  # what this machine says for everybody
    assert module.kept({**outside, **environment}, str(tmp_path)) == before | kept


def test_pips_files_are_read_in_its_order(tmp_path: Path) -> None:
    home, prefix, named = tmp_path / "home", tmp_path / "env", tmp_path / "named"
    module = pip_settings()
    environment = {"HOME": str(home)}
    assert module.files(environment, str(prefix)) == [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        home / ".config/pip/pip.conf",
        prefix / "pip.conf",
    ]
    named.touch()
    environment["PIP_CONFIG_FILE"] = str(named)
    assert module.files(environment, str(prefix)) == [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        prefix / "pip.conf",
        named,
    ]
    assert module.files({"PIP_CONFIG_FILE": os.devnull}, str(prefix)) == []


def test_what_a_shell_is_to_export_is_quoted(tmp_path: Path) -> None:
    script = CHECKOUT / "apache" / "pip_settings.py"
    value = "https://index.example/it's $(touch harm)"
    run = subprocess.run(
        ["sh", "-ceu", 'eval "$("$0" -I "$1")"; printf %s "$PIP_INDEX_URL"', sys.executable, str(script)],
        env={"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == value
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_pip_install_left_in_the_checkout_gets_into_no_wheel(tmp_path: Path) -> None:
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, tmp_path)
    for name in ("lbadaptor", "monitor", "apache"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    stale = tmp_path / "build" / "lib" / "lbadaptor" / "gone_since.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    pip = [sys.executable, "-I", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "."], cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "lbadaptor/adaptor/middleware.py" in names
    assert "lbadaptor/gone_since.py" not in names
