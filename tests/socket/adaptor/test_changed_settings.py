"""An adaptor that is told of new settings while it serves: nobody loses their session for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import ScriptedServer, answer, refusal
from stage import Site

from lbadaptor.adaptor import wsgi
from lbadaptor.adaptor.middleware import Adaptor
from lbadaptor.contract.address import State
from lbadaptor.contract.settings import load
from lbadaptor.log.once import Once
from monitor.arbiter.files.settings_json import SettingsFile

Serve = Callable[..., ScriptedServer]


class Configured(Site):
    """An adaptor that has a lbadaptor.toml, and a monitor's hand that accepts it."""

    @property
    def config(self) -> Path:
        return self.folder / "shop.toml"

    def write(self, cookie: str = "__PRT__", text: str = "", **adaptor: object) -> None:
        rows = {"wait": 10.0, "answer_timeout": 50.0, **adaptor}
        self.config.write_text(
            f'[application]\napp = "shop:app"\nsession_cookie = "sid"\nticket_cookie = "{cookie}"\n'
            '[files]\nrun_folder = "."\nkey_file = "keys"\n[adaptor]\n'
            + "".join(f"{name} = {value}\n" for name, value in rows.items())
            + text
        )

    def accept(self, *others: str) -> None:
        settings = load(self.config)
        SettingsFile(settings.snapshot_file, None, self.config).write(settings, others)

    @property
    def adaptor(self) -> Adaptor:
        if self._adaptor is None:
            self._adaptor = Adaptor(self.config)
        return self._adaptor


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configured]:
    monkeypatch.setattr("lbadaptor.adaptor.backends.MAX_TABLE_AGE", 0.0)  # what is published is seen at once
    site = Configured(tmp_path)
    site.write()
    site.accept()
    yield site
    site.close()


def cookies(**brought: str) -> dict[str, str]:
    return {"HTTP_COOKIE": "; ".join(f"{name}={value}" for name, value in brought.items())}


def test_a_new_name_of_the_ticket_and_the_old_one_both_lead_to_their_holders(site: Configured, serve: Serve) -> None:
    old, new = serve(default=answer(b"old")), serve(default=answer(b"new"))
    first = site.entry(old)
    site.publish(first)
    assert site.ask(**cookies(__PRT__=first.ticket)).body == b"old"
    site.write("__NEW__")
    site.accept("__PRT__")
    second = site.entry(new, 1)
    site.publish(site.entry(old, state=State.DYING), second)
    for _ in range(2):
        assert site.ask(**cookies(__PRT__=first.ticket)).body == b"old"
        assert site.ask(**cookies(__NEW__=second.ticket)).body == b"new"
    site.accept()
    site.publish(second)
    assert site.ask(**cookies(__NEW__=second.ticket)).body == b"new"
    assert site.adaptor.configuration.tickets(cookies(__PRT__=first.ticket)) == []


def test_the_very_request_that_finds_the_new_name_goes_by_it(site: Configured, serve: Serve) -> None:
    old, new = serve(default=answer(b"old")), serve(default=answer(b"new"))
    site.publish(site.entry(old))
    assert site.ask().body == b"old"
    site.write("__NEW__")
    site.accept("__PRT__")
    second = site.entry(new, 1, State.DYING)
    site.publish(site.entry(old), second)
    assert site.ask(**cookies(__PRT__="unknown", __NEW__=second.ticket)).body == b"new"


def test_of_two_tickets_the_one_whose_holder_knows_the_visitor_leads(site: Configured, serve: Serve) -> None:
    """A visitor whom an AppServer of the release before does not know any more has its ticket all the same."""
    site.write("__NEW__")
    site.accept("__PRT__")
    old, new = serve(default=refusal("DYING")), serve(default=answer(b"new"))
    other = serve(default=answer(b"other"))
    first, second = site.entry(old, state=State.DYING), site.entry(new, 1)
    site.publish(first, second, site.entry(other, 2))
    both = cookies(__PRT__=first.ticket, __NEW__=second.ticket)
    assert {site.ask(**both).body for _ in range(4)} == {b"new"}
    site.write("__PRT__")
    site.accept("__NEW__")
    site.publish(first, second, site.entry(other, 2))
    assert {site.ask(**both).body for _ in range(4)} == {b"new"}
    assert other.requests == []


@pytest.mark.parametrize("typo", ["typo\n", "wait = 'soon'\n", "[adapter]\n"])
def test_a_broken_file_harms_neither_running_nor_starting_adaptors(site: Configured, serve: Serve, typo: str) -> None:
    site.publish(site.entry(serve(default=answer(b"served"))))
    assert site.ask().body == b"served"
    site.write(text=typo)
    site.publish(site.entry(serve(default=answer(b"served"))))
    assert site.ask().body == b"served"
    site.close()
    site._adaptor = None
    site.publish(site.entry(serve(default=answer(b"served"))))
    assert site.ask().body == b"served"


def test_settings_of_the_adaptor_change_when_they_are_accepted_and_no_sooner(site: Configured, serve: Serve) -> None:
    server = serve(default=answer(b"x"))
    site.publish(site.entry(server))
    site.ask()
    before = site.adaptor.configuration
    site.write(wait=0.1, waiters=3, body_memory=1, pass_variables='["MINE"]', sorry_page='"s"', idle_connections=0)
    site.publish(site.entry(server))
    site.ask()
    assert site.adaptor.configuration is before
    site.accept()
    site.publish(site.entry(server))
    site.ask()
    after = site.adaptor.configuration
    assert after is not before
    assert after.settings.adaptor.wait == 0.1
    assert after.keep[0] == 1
    assert after.error_page is not None
    assert after.waiters is not before.waiters
    assert after.waiters_for_moves is not before.waiters_for_moves
    connections = server.connections
    site.ask()
    assert server.connections == connections + 1, "no idle connection is kept any more"


def test_who_is_in_flight_is_not_forgotten(site: Configured, serve: Serve) -> None:
    server = serve(default=answer(b"x" * 1_000_000))
    entry = site.entry(server)
    site.publish(entry)
    with site.begin() as response:
        assert site.adaptor.backends.load(entry).in_flight == 1
        site.write(answer_timeout=40)
        site.accept()
        site.publish(entry)
        with site.begin() as other:
            assert site.adaptor.backends.load(entry).in_flight == 2
            other.read()
        response.read()
        assert len(response.body) == 1_000_000
    assert site.adaptor.backends.load(entry).in_flight == 0


def test_two_applications_with_one_ticket_cookie_on_one_host_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("_adaptors", "_first_config"):
        monkeypatch.setattr(wsgi, name, {})
    monkeypatch.setattr(wsgi, "_logged", Once(100))
    monkeypatch.setattr("lbadaptor.adaptor.middleware.Adaptor.__call__", lambda *_: [])
    configs = []
    for name, cookie in (("shop", "__PRT__"), ("blog", "__PRT__"), ("wiki", "__WIKI__")):
        (tmp_path / name).mkdir()
        site = Configured(tmp_path / name)
        site.write(cookie)
        configs.append(str(site.config))

    def come(config: str, host: str) -> None:
        wsgi.application({"LBADAPTOR_CONFIG": config, "SERVER_NAME": host}, lambda *_: None)

    come(configs[0], "a.example")
    come(configs[1], "b.example")
    for config in (configs[0], configs[2]):
        come(config, "c.example")
    assert caplog.text == ""
    for _ in range(3):
        come(configs[0], "b.example")
    assert caplog.text.count("have the same ticket_cookie `__PRT__` on b.example") == 1
    for number in range(2 * wsgi._MAX_HOSTS):
        come(configs[0], f"{number}.example")
    assert len(wsgi._first_config) == wsgi._MAX_HOSTS
