"""The sections for HAProxy, and what is refused. (Whether it accepts them: tests/process/test_haproxy_accepts.py.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lbadaptor.contract.address import Address, Identity
from lbadaptor.contract.settings import Settings, parse
from lbadaptor.contract.ticket import Keys
from monitor.ctl.main import main
from monitor.haproxyconfig import compose, machines
from monitor.haproxyconfig.machines import Machine, Refused

APPLICATION = '[application]\napp = "shop:app"\nsession_cookie = "sid"\n'
MACHINE = '[machine]\nnumber = 1\nfront = ["10.0.0.1"]\nagent = "10.0.0.11:9900"\nweight = 80\n'
ONE = ("web1=10.0.0.11",)
TWO = (*ONE, "web2=10.0.0.12:8080,weight=50")


def settings(more: str = "", machine: str = MACHINE, application: str = "") -> Settings:
    return parse(APPLICATION + application + machine + more)


def text(
    these: tuple[str, ...] = TWO, of: Settings | None = None, peers: tuple[str, ...] = (), **options: object
) -> str:
    found = of or settings()
    chosen = {"name": "shop", "machines": machines.machines(these, found), "peers": machines.peers(peers)} | options
    return compose.compose(compose.Options(**chosen), found, "lbctl haproxy-config")  # type: ignore[arg-type]


def line(begin: str, of: str) -> str:
    """The only line that begins like this, without its indentation."""
    [found] = re.findall(rf"^ *({re.escape(begin)}.*)$", of, flags=re.M)
    return str(found)


def test_a_machine_is_as_this_one_where_nothing_is_said() -> None:
    assert machines.machines(TWO, settings()) == [
        Machine("web1", Address("10.0.0.11", 80), 80, Address("10.0.0.11", 9900)),
        Machine("web2", Address("10.0.0.12", 8080), 50, Address("10.0.0.12", 9900)),
    ]


@pytest.mark.parametrize(
    ("said", "address", "agent"),
    [
        ("fd00::11", Address("fd00::11", 80), Address("fd00::11", 9900)),
        ("[FD00:0::11]", Address("fd00::11", 80), Address("fd00::11", 9900)),
        ("[fd00::11]:8080", Address("fd00::11", 8080), Address("fd00::11", 9900)),
        ("10.0.0.11,agent=[fd00::11]:9901", Address("10.0.0.11", 80), Address("fd00::11", 9901)),
    ],
)
def test_addresses(said: str, address: Address, agent: Address) -> None:
    [found] = machines.machines([f"web1={said}"], settings())
    assert (found.address, found.agent) == (address, agent)


@pytest.mark.parametrize(
    ("these", "why"),
    [
        ((), "no machine"),
        (("web1",), "NAME=ADDRESS"),
        (("=10.0.0.1",), "NAME=ADDRESS"),
        (("web 1=10.0.0.1",), "NAME=ADDRESS"),
        (("web1=",), "host:port"),
        (("web1=www.example.com:80",), "no IP address"),
        (("web1=[fe80::1%eth0]:80",), "no IP address"),
        (("web1=fe80::1%x\n    server evil 10.9.9.9",), "web1"),
        (("web1=10.0.0.1:0",), "0 is no port"),
        (("web1=10.0.0.1:65536",), "host:port"),
        (("web1=10.0.0.1:80:80",), "brackets"),
        (("web1=10.0.0.1,weight=0",), "from 1 to 256"),
        (("web1=10.0.0.1,weight=257",), "from 1 to 256"),
        (("web1=10.0.0.1,weight",), "weight=N and agent"),
        (("web1=10.0.0.1,weight=1,weight=2",), "each once"),
        (("web1=10.0.0.1,backup=1",), "weight=N and agent"),
        (("web1=10.0.0.1,agent=10.0.0.1",), "host:port"),
        (("web1=10.0.0.1,agent=:9900",), "host:port"),
        (("web1=10.0.0.1", "web1=10.0.0.2"), "two machines have one name, web1"),
        (("web1=10.0.0.1", "web2=10.0.0.1:80"), "two machines have one address, 10.0.0.1:80"),
        (("web1=fd00::1", "web2=[fd00:0::1]:80"), "two machines have one address"),
        (("web1=10.0.0.1", "web2=::ffff:10.0.0.1"), "two machines have one address"),
        (("a=10.0.0.1,agent=10.0.0.9:1", "b=10.0.0.2,agent=10.0.0.9:1"), "two machines have one agent"),
    ],
)
def test_what_is_refused_of_machines(these: tuple[str, ...], why: str) -> None:
    with pytest.raises(Refused, match=re.escape(why)):
        machines.machines(these, settings())


def test_the_agent_of_another_machine_is_not_at_this_ones_loopback() -> None:
    ours = settings(machine='[machine]\nnumber = 1\nagent = "127.0.0.1:9900"\n')
    with pytest.raises(Refused, match="loopback"):
        machines.machines(ONE, ours)
    [found] = machines.machines(["web1=127.0.0.2:8080"], ours)
    assert found.agent == Address("127.0.0.2", 9900)
    assert machines.machines(["web1=10.0.0.11,agent=10.0.0.11:9900"], ours)[0].agent == Address("10.0.0.11", 9900)


@pytest.mark.parametrize(
    ("these", "why"),
    [
        (("lb1=10.0.0.1",), "host:port"),
        (("10.0.0.1:10000",), "NAME=ADDRESS"),
        (("lb1=10.0.0.1:10000", "lb1=10.0.0.2:10000"), "two peers have one name"),
        (("lb1=10.0.0.1:10000", "lb2=10.0.0.1:10000"), "two peers have one address"),
    ],
)
def test_what_is_refused_of_peers(these: tuple[str, ...], why: str) -> None:
    with pytest.raises(Refused, match=re.escape(why)):
        machines.peers(these)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("name", "my shop"),
        ("name", ""),
        ("host", "a b"),
        ("host", ""),
        ("mount", "shop"),
        ("mount", "/my shop"),
        ("mount", "/shop/"),
        ("bind", (" ",)),
        ("bind", (":80\nuser root",)),
    ],
)
def test_words_that_haproxy_could_not_read_are_refused(option: str, value: object) -> None:
    with pytest.raises(Refused, match=f"--{option}"):
        text(**{option: value})


def test_a_cookie_that_would_need_quotes_is_refused() -> None:
    with pytest.raises(Refused, match="ticket_cookie"):
        text(of=settings(application='ticket_cookie = "a#b"\n'))


def test_a_ticket_is_learnt_and_looked_up_and_nothing_else() -> None:
    found = text(of=settings(application='ticket_cookie = "__SHOP__"\n'))
    match, store = line("stick match", found), line("stick store-response", found)
    assert match.startswith("stick match req.cook(__SHOP__) if { req.cook(__SHOP__) -m reg ")
    assert store.startswith("stick store-response res.cook(__SHOP__) if { res.cook(__SHOP__) -m reg ")
    for one in (match, store):
        shape = re.compile(one.split()[-2])
        for ticket in (
            Keys(["k" * 32]).ticket(Identity(0, 1763805600123)),
            Keys(["k" * 32]).ticket(Identity(999_999, 10**16 - 1)),
        ):
            assert shape.search(ticket)
            assert len(ticket) <= compose.KEY_LENGTH
            for bad in ("", ticket[:-1], f"{ticket}x", f"x{ticket}", f"{ticket} ", ticket.replace(".", "_")):
                assert not shape.search(bad), bad


@pytest.mark.parametrize(("idle", "expire"), [(1800, 2100), (0.5, 301), (2_678_400, 2_073_600)])
def test_a_ticket_is_remembered_for_longer_than_its_last_session_lives(idle: float, expire: int) -> None:
    found = text(of=settings(application=f"session_idle = {idle}\n"))
    assert f" expire {expire}s " in line("stick-table", found)
    assert ("longer than HAProxy can count" in found) == (idle > compose.MAX_TIME)


def test_the_table_has_room_for_each_appserver_of_each_machine() -> None:
    assert " size 10000 " in line("stick-table", text())
    many = tuple(f"web{number}=10.0.1.{number}" for number in range(1, 101))
    assert " size 160000 " in line("stick-table", text(many))  # 16 slots, 100 machines
    assert " 64 MB" in re.sub(r"\n *#", "", text(many))


def test_time_outs_are_longer_than_the_adaptors() -> None:
    found = text(of=settings("[adaptor]\nanswer_timeout = 100.5\nwait = 20\n"), bind=[":80"])
    assert line("timeout server", found) == "timeout server 231s"
    assert line("timeout client", found) == "timeout client 231s"
    assert line("timeout queue", found) == "timeout queue 30s"
    huge = text(of=settings("[adaptor]\nanswer_timeout = 3e7\n"))
    assert line("timeout server", huge) == f"timeout server {compose.MAX_TIME}s"


def test_a_line_for_each_machine() -> None:
    found = text(("web1=10.0.0.11", "web2=[fd00::12]:8080,weight=5,agent=10.0.0.12:9901"))
    agent = "agent-check agent-addr 10.0.0.11 agent-port 9900 agent-inter 2s"
    assert re.fullmatch(rf"server web1 10\.0\.0\.11:80 id [1-9]\d* weight 80 {agent}", line("server web1", found))
    assert line("server web2", found).startswith("server web2 [fd00::12]:8080 id ")
    assert " agent-addr 10.0.0.12 agent-port 9901 " in line("server web2", found)
    alone = text(of=settings(machine=""))
    assert re.fullmatch(
        r"server web1 10\.0\.0\.11:80 id [1-9]\d* weight 100 slowstart 60s", line("server web1", alone)
    )


def test_a_machines_id_is_its_own_whichever_others_there_are() -> None:
    both, one = text(TWO), text(TWO[1:])
    assert line("server web2", both) == line("server web2", one)
    assert line("server web1", both).split()[4] != line("server web2", both).split()[4]


def test_the_health_page_of_a_mount_and_host() -> None:
    found = text(host="www.example.com", mount="/shop")
    assert line("http-check send", found).startswith(
        "http-check send meth GET uri /shop/__lb__/health/holders ver HTTP/1.1 hdr Host www.example.com"
    )


def test_one_haproxy_hands_its_table_to_itself() -> None:
    assert re.fullmatch(r'peer "\$HAPROXY_LOCALPEER" 127\.0\.0\.1:10\d\d\d', line("peer ", text()))
    assert " peers shop_peers" in line("stick-table", text())


def test_a_pair_hands_it_to_each_other() -> None:
    found = text(peers=("lb1=10.0.0.1:10000", "lb2=[fd00::2]:10000"))
    assert re.findall(r"^    (peer .*)$", found, flags=re.M) == [
        "peer lb1 10.0.0.1:10000",
        "peer lb2 [fd00::2]:10000",
    ]


def test_two_applications_have_no_name_in_common() -> None:
    def sections(name: str) -> set[str]:
        found = text(name=name, bind=[":80"])
        return set(re.findall(r"^(\w+ .+)$|(127\.0\.0\.1:\d+)", found, flags=re.M))

    assert len(sections("shop")) == 4
    assert not sections("shop") & sections("board")


def test_a_frontend_only_where_it_is_asked_for() -> None:
    assert "frontend" not in re.sub(r"#.*", "", text())
    assert "default_backend shop" in text()  # how to name it in one's own
    found = text(bind=[":80", ":443 ssl crt /etc/x.pem"])
    assert re.findall(r"^    bind (.*)$", found, flags=re.M) == [":80", ":443 ssl crt /etc/x.pem"]
    assert line("default_backend", found) == "default_backend shop"


def test_what_a_visitor_claims_is_removed_before_haproxy_says_it() -> None:
    found = re.sub(r"#.*", "", text())
    rules = ("del-header X-Forwarded-For", "option forwardfor", "X-Forwarded-Proto https", "X-Forwarded-Proto http ")
    places = [found.index(rule) for rule in rules]
    assert places == sorted(places)


def test_every_comment_is_short_enough_for_a_terminal() -> None:
    found = text(bind=[":80"], peers=("lb1=10.0.0.1:1", "lb2=10.0.0.2:1")).splitlines()
    assert [one for one in found if "#" in one and len(one) > 116] == []


def test_what_this_machine_lacks_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert compose.warnings(settings()) == []
    config = tmp_path / "my shop.toml"
    config.write_text(APPLICATION)
    file = tmp_path / "shop.cfg"
    assert main(["--config", str(config), "haproxy-config", "--machine", "web1=10.0.0.11", "--write", str(file)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{file}: written, for 1 machines\n"
    for name in ("number", "front", "agent"):
        assert f"lbctl: [machine] {name} is not set" in said.err
    written = file.read_text()
    assert f"# lbctl --config '{config}' haproxy-config --machine web1=10.0.0.11\n" in written
    assert "\nbackend my-shop\n" in written  # named after the file


def test_a_refusal_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config, file = tmp_path / "shop.toml", tmp_path / "shop.cfg"
    config.write_text(APPLICATION)
    file.write_text("as before")
    assert main(["--config", str(config), "haproxy-config", "--write", str(file)]) == 1
    assert capsys.readouterr().err == (
        "lbctl: no machine is named: --machine web1=10.0.0.11 --machine web2=10.0.0.12\n"
    )
    assert file.read_text() == "as before"


def test_the_command_stands_in_comments_whatever_the_name_of_the_settings_file() -> None:
    options = compose.Options(name="shop", machines=machines.machines(TWO, settings()))
    head = compose.compose(options, settings(), "lbctl --config 'a\n    server evil 10.9.9.9'").partition("peers")[0]
    assert all(one.startswith("#") for one in head.split("\n") if one)
