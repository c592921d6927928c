"""The file that Apache's configuration includes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Settings, parse
from monitor.apacheconfig.lanes import LOG_FORMAT, SNIPPETS, PythonLane, both, python_alone
from monitor.apacheconfig.quoting import comment, quoted

SHARE = Path("/opt/lb")


def settings(adaptor: str = "") -> Settings:
    return parse(f'[application]\napp = "shop:app"\nsession_cookie = "sid"\n[adaptor]\n{adaptor}\n')


def directives(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("snippet", SNIPPETS.values())
def test_the_python_lane_comes_first(snippet: str) -> None:
    text = both(
        PythonLane(snippet, SHARE, Path("/etc/a b.toml"), "/shop"), "# The fast lane\nRewriteEngine On\n", "write it"
    )
    assert "\n# write it\n" in text
    assert directives(text) == [
        "Define LBADAPTOR_SHARE /opt/lb",
        'Define LBADAPTOR_CONFIG "/etc/a b.toml"',
        "Define LBADAPTOR_MOUNT /shop",
        "Define LBADAPTOR_LOG",
        f"Include /opt/lb/{snippet}",
        "<IfModule log_config_module>",
        f"    {LOG_FORMAT}",
        "</IfModule>",
        "RewriteEngine On",
        "UnDefine LBADAPTOR_LOG",
    ]


def test_the_log_can_be_left_as_it_is() -> None:
    lane = PythonLane.of(settings("log_variables = false"), "x.conf", SHARE, Path("/etc/x.toml"), "")
    assert "LBADAPTOR_LOG" not in both(lane, "", "")
    assert "LogFormat" not in both(lane, "", "")


@pytest.mark.parametrize("mount", ["/shop", ""])
def test_an_id_of_the_visitors_counts_only_where_it_is_trusted(mount: str) -> None:
    lane = PythonLane.of(settings("trust_request_id = true"), "x.conf", SHARE, Path("/etc/x.toml"), mount)
    for text in (both(lane, "", ""), python_alone(lane, "", "")):
        found = re.search(
            rf'<Location {mount or "/"}>\n    SetEnvIfExpr "(.*) =~ m#(.*)#" UNIQUE_ID=\$1\n</Location>', text
        )
        assert found
        assert found[1] == "%{req_novary:X-Request-Id}"  # the answer does not vary with it
        for good in ("a", "A.b_c~d+e/f=g@h:i-9", "x" * 128):
            assert re.search(found[2], good)
        for bad in ("", "x" * 129, "a b", "a,b", 'a"', "a\\", "ä", "a%41", "$(x)"):
            assert not re.search(found[2], bad)
    assert "UNIQUE_ID=" not in both(PythonLane.of(settings(), "x.conf", SHARE, Path("/etc/x.toml"), mount), "", "")


def test_the_whole_site_has_no_mount() -> None:
    assert "LBADAPTOR_MOUNT" not in both(PythonLane("x.conf", SHARE, Path("/etc/x.toml"), ""), "", "")


def test_a_snippet_of_another_folder_is_included_from_there() -> None:
    text = both(PythonLane(Path("/tmp/x.conf"), SHARE, Path("/etc/x.toml"), ""), "", "")
    assert "\nInclude /tmp/x.conf\n" in text


def test_a_command_of_several_lines_stays_a_comment() -> None:
    lane = PythonLane("x.conf", SHARE, Path("/etc/x.toml"), "")
    assert directives(both(lane, "", "write 'a\nLoadModule x'")) == directives(both(lane, "", "write"))


def test_the_reason_is_a_comment_whatever_it_says() -> None:
    why = "first\n  second \\\nLoadModule x\n\tthird\x00\\"
    text = python_alone(PythonLane("x.conf", SHARE, Path("/etc/x.toml"), "", log=False), why, "")
    assert "\n# There is no fast lane:\n# first\n#   second\n# LoadModule x\n#  third\n" in text
    assert len(directives(text)) == 3


def test_a_comment_takes_no_other_line_with_it() -> None:
    assert comment("a\\\nb\\ \\") == ["# a", "# b"]


def test_what_quotes_do_not_help_against_is_refused() -> None:
    assert quoted('a"b\\', "txt:") == '"txt:a\\"b\\\\"'
    for text in ("${x}", "a\nb"):
        with pytest.raises(SettingsError):
            quoted(text)
