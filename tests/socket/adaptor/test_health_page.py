"""The health page: what one of several machines tells a balancer that asks by HTTP."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import ScriptedServer, answer
from stage import Response, Site

from lbadaptor.adaptor import middleware
from lbadaptor.adaptor.address_table import STALE
from lbadaptor.adaptor.middleware import Adaptor
from lbadaptor.contract.address import Address, State
from lbadaptor.contract.settings import load, snapshot

Serve = Callable[..., ScriptedServer]

HEALTH, HOLDERS = "/__lb__/health", "/__lb__/health/holders"
FRONT = "10.0.0.1"


class OneOfSeveral(Site):
    """An adaptor whose settings a monitor has accepted."""

    machine = f'number = 3\nfront = ["{FRONT}", "2001:DB8::1"]\n'
    leaving = False

    @property
    def config(self) -> Path:
        return self.folder / "shop.toml"

    def accept(self) -> None:
        self.config.write_text(
            '[application]\napp = "shop:app"\nsession_cookie = "sid"\n[files]\nrun_folder = "."\nkey_file = "keys"\n'
            f"[adaptor]\nwait = 30\n[machine]\n{self.machine}"
        )
        settings = load(self.config)
        settings.snapshot_file.write_bytes(snapshot.encode(settings, ["__PRT__"], self.config, self.leaving))

    @property
    def adaptor(self) -> Adaptor:
        if self._adaptor is None:
            self.accept()
            self._adaptor = Adaptor(self.config)
        return self._adaptor

    def health(self, path: str = HEALTH, method: str = "GET", who: str = FRONT) -> Response:
        return self.ask(method, PATH_INFO=path, REMOTE_ADDR=who)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[OneOfSeveral]:
    site = OneOfSeveral(tmp_path)
    yield site
    site.close()


@pytest.mark.parametrize(
    ("states", "leaving", "health", "holders"),
    [
        ("OK OK", False, (200, b"up: OK 2\n"), (200, b"up: OK 2\n")),
        ("OK DYING", False, (200, b"up: OK 1, DYING 1\n"), (200, b"up: OK 1, DYING 1\n")),
        ("DYING", False, (503, b"no AppServer takes new visitors: DYING 1\n"), (200, b"up: DYING 1\n")),
        ("FAILING", False, (503, b"no AppServer takes new visitors: FAILING 1\n"), (200, b"up: FAILING 1\n")),
        ("OK", True, (503, b"drain: this machine is leaving\n"), (200, b"up: OK 1\n")),
        ("", True, (503, b"drain: this machine is leaving\n"), (503, b"down: no AppServer serves\n")),
        ("", False, (503, b"no AppServer takes new visitors\n"), (503, b"down: no AppServer serves\n")),
    ],
)
def test_it_tells_who_may_come(
    site: OneOfSeveral,
    serve: Serve,
    states: str,
    leaving: bool,
    health: tuple[int, bytes],
    holders: tuple[int, bytes],
) -> None:
    """Nobody is asked, and nothing is waited for: not even for the first AppServer, for which visitors would wait."""
    servers = [serve() for _ in states.split()]
    site.leaving = leaving
    site.publish(*(site.entry(servers[slot], slot, State(state)) for slot, state in enumerate(states.split())))
    for path, told in ((HEALTH, health), (HOLDERS, holders)):
        for method in ("GET", "HEAD"):
            found = site.health(path, method)
            assert (found.status, found.body) == told
            assert found.get("Content-Type") == "text/plain; charset=utf-8"
            assert found.get("Cache-Control") == "no-store"


def test_that_the_machine_is_leaving_is_learnt_with_address_text(site: OneOfSeveral, serve: Serve) -> None:
    [entry] = site.publish_servers(serve())
    assert site.health().status == 200
    site.leaving = True
    site.accept()
    site.publish(entry)
    assert site.health().status == 503
    site.leaving = False
    site.accept()
    site.publish(entry)
    assert site.health().status == 200


def test_without_any_address_text_nobody_may_come(site: OneOfSeveral) -> None:
    assert site.health().status == site.health(HOLDERS).status == 503


def test_where_the_monitor_is_gone_the_dead_do_not_count(
    site: OneOfSeveral, serve: Serve, refusing_address: Address
) -> None:
    """As long as it is there, it says who lives, and nobody is asked."""
    dead = site.entry(refusing_address, 1, State.DYING)
    for living, fresh, told in (
        ([site.entry(serve(), 0, State.OK)], (200, b"up: OK 1, DYING 1\n"), (200, b"up: OK 1\n")),
        ([], (200, b"up: DYING 1\n"), (503, b"down: no AppServer serves\n")),
    ):
        site.publish(*living, dead)
        found = site.health(HOLDERS)
        assert (found.status, found.body) == fresh
        long_ago = time.time() - STALE - 1
        os.utime(site.folder / "address.text", (long_ago, long_ago))
        found = site.health(HOLDERS)
        assert (found.status, found.body) == told


def test_an_address_may_be_spelt_in_many_ways(site: OneOfSeveral, serve: Serve) -> None:
    site.publish_servers(serve())
    for who in ("2001:db8::1", "2001:0db8:0::1", f"::ffff:{FRONT}"):
        assert site.health(who=who).body == b"up: OK 1\n"


@pytest.mark.parametrize(
    ("path", "method", "who"),
    [
        (HEALTH, "GET", "192.0.2.7"),
        (HOLDERS, "HEAD", ""),
        (HEALTH, "POST", FRONT),
        (f"{HEALTH}/", "GET", FRONT),
        (f"{HEALTH}/more", "GET", FRONT),
        (f"/shop{HEALTH}", "GET", FRONT),
        ("/__lb__/status", "GET", FRONT),
    ],
)
def test_all_else_is_the_applications(site: OneOfSeveral, serve: Serve, path: str, method: str, who: str) -> None:
    server = serve(answer(b"" if method == "HEAD" else b"mine"))
    site.publish_servers(server)
    found = site.health(path, method, who)
    assert (found.status, found.body) == (200, b"" if method == "HEAD" else b"mine")
    assert len(server.requests) == 1


@pytest.mark.parametrize("machine", ["", "number = 3\n"])
def test_where_no_number_or_no_front_is_set_it_is_the_applications(
    site: OneOfSeveral, serve: Serve, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware.Adaptor, "_is_of_front", None)  # and nothing is looked at
    site.machine = machine
    site.publish_servers(serve(answer(b"mine")))
    assert site.health().body == b"mine"
