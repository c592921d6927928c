"""The line in a virtual host that includes an application."""

from __future__ import annotations

import pytest

from monitor.install import virtual_hosts
from monitor.install.virtual_hosts import with_include, without_include

LINE = "Include /etc/apache2/lbadaptor-shop.conf"
DEFAULT = """# The default.
<VirtualHost *:80>
	DocumentRoot /var/www/html
	#Include conf-available/serve-cgi-bin.conf
</VirtualHost>
# vim: syntax=apache
"""
TWO = """<VirtualHost *:80>
  ServerName www.example.com:80
  ServerAlias example.com "shop.example.com"
</VirtualHost>
<virtualhost *:443>
  ServerName https://www.example.com
</virtualhost >
<VirtualHost *:80>
  ServerName other.example.com
</VirtualHost>
"""
DUMP = """# In file: /etc/apache2/ports.conf
#   5:
Listen 443 https
Listen [::1]:8080
# In file: /etc/apache2/sites-enabled/000-default.conf
<VirtualHost *:80>
DocumentRoot /var/www/html
</VirtualHost>
# In file: /etc/apache2/sites-enabled/shop.conf
<VirtualHost *:80>
ServerName www.example.com
ServerAlias shop.example.com
</VirtualHost>
# In file: /etc/apache2/apache2.conf
ServerName machine.example.com
"""


def test_the_default_site_gets_the_line_at_its_end_and_loses_it_again() -> None:
    found = with_include(DEFAULT, "", LINE)
    assert found == DEFAULT.replace("</VirtualHost>", f"\t{LINE}\n</VirtualHost>")
    assert with_include(found, "", LINE) == found
    assert without_include(found, LINE) == DEFAULT


def test_a_path_stands_before_the_whole_site() -> None:
    whole = with_include(DEFAULT, "", LINE)
    found = with_include(whole, "", "Include board", before=[LINE])
    assert found == whole.replace(f"\t{LINE}", f"\tInclude board\n\t{LINE}")


@pytest.mark.parametrize(
    ("host", "places"),
    [("WWW.example.com", [3, 7]), ("shop.example.com", [3]), ("other.example.com", [9]), ("none.example.com", [])],
)
def test_each_virtual_host_of_a_host_gets_the_line(host: str, places: list[int]) -> None:
    lines = with_include(TWO, host, LINE).splitlines()
    assert [number for number, line in enumerate(lines) if line == f"  {LINE}"] == places
    assert without_include("\n".join(lines) + "\n", LINE) == TWO


@pytest.mark.parametrize(
    ("host", "mount", "there"),
    [("", "/shop", True), ("", "", False), ("www.example.com", "/shop", False), ("www.example.com", "", True)],
)
def test_where_an_adaptor_is(host: str, mount: str, there: bool) -> None:
    def alias(mount: str) -> str:
        pattern = rf"^\Q{mount}\E(?:/[\s\S]*)?$" if mount else r"^/[\s\S]*$"
        return f'WSGIScriptAliasMatch "{pattern}" "/opt/lbadaptor/share/lbadaptor/lbadaptor.wsgi" process-group=x\n'

    dump = DUMP.replace("DocumentRoot", alias("/shop") + "DocumentRoot").replace(
        "ServerAlias", alias("") + "ServerAlias"
    )
    assert virtual_hosts.has_adaptor(dump, host, mount) == there


def test_what_apache_tells() -> None:
    assert virtual_hosts.port(DUMP) == 8080
    assert virtual_hosts.port("") == 80
    assert virtual_hosts.files(DUMP, "") == ["/etc/apache2/sites-enabled/000-default.conf"]
    assert virtual_hosts.files(DUMP, "Shop.example.com") == ["/etc/apache2/sites-enabled/shop.conf"]
    assert virtual_hosts.files(DUMP, "machine.example.com") == []
    assert virtual_hosts.any_is_there(DUMP)
    assert not virtual_hosts.any_is_there("# In file: /a\nServerName a\n")
