from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from msgspec.structs import replace

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import COUNTED, DEFAULT_FILE, SECTIONS, Settings, load, parse, reference
from lbadaptor.contract.settings.load import EXPECTED
from lbadaptor.contract.settings.sections.row import Step
from monitor.apacheconfig import fastlane, lanes

LEAST = '[application]\napp = "shop.wsgi:application"\nsession_cookie = "sid"\n'
MACHINE = f"{LEAST}[machine]\nnumber = 3\n"
SURVIVE = f'{LEAST}[sessions]\nsurvive = "leaving"\n'


def test_the_least_file_takes_every_default() -> None:
    settings = parse(LEAST)
    assert settings.application.ticket_cookie == "__PRT__"
    assert (settings.appservers.servers, settings.slots, settings.max_dying) == (4, 16, 4)
    assert settings.address_file == Path("/run/lbadaptor/address.text")
    assert settings.control_socket == Path("/run/lbadaptor/control.sock")
    assert settings.key_file == Path("/var/lib/lbadaptor/keys")


def test_sessions_outlive_nothing_by_default() -> None:
    settings = parse(LEAST)
    assert (settings.sessions.survive, settings.sessions_survive) == ("nothing", False)
    assert settings.session_folder == Path("/var/lib/lbadaptor/sessions")
    assert (settings.sessions.max_bytes, settings.sessions.max_files) == (4 * 1024**3, 1_000_000)


@pytest.mark.parametrize("survive", ["leaving", "anything"])
def test_sessions_may_survive_in_a_folder_that_is_named_from_that_of_the_file(survive: str) -> None:
    text = f'{LEAST}[sessions]\nsurvive = "{survive}"\nfolder = "kept"\nsave = "a:b"\nload = "a:c"\n'
    settings = parse(text, "/srv/shop")
    assert (settings.sessions_survive, settings.session_folder) == (True, Path("/srv/shop/kept"))


def test_a_small_share_of_disk_matters_only_where_sessions_survive() -> None:
    assert parse(f"{LEAST}[sessions]\nmax_bytes = 1\n").sessions.max_bytes == 1
    assert parse(f"{SURVIVE}max_bytes = 1048576\n").sessions.max_bytes == 1048576


def test_numbers_that_are_set_win_over_those_that_follow_from_others() -> None:
    settings = parse(f"{LEAST}[appservers]\nservers = 2\nslots = 5\n[monitor]\nmax_dying = 1\n")
    assert (settings.slots, settings.max_dying) == (5, 1)


def test_affinity_goes_without_session_cookie_and_with_a_limit_on_drains() -> None:
    settings = parse('[application]\napp = "a:b"\naffinity = true\n[monitor]\ndrain_limit = 60\n')
    assert (settings.application.affinity, settings.application.session_cookie) == (True, "")


@pytest.mark.parametrize("name", [*COUNTED, "shop.sessions:count", ""])
def test_sessions_are_counted_by_a_framework_or_a_function(name: str) -> None:
    assert parse(f'{LEAST}session_count = "{name}"\n').application.session_count == name


def test_a_hard_limit_needs_no_other() -> None:
    assert parse(f"{LEAST}[appservers]\nhard_memory = 9\n").appservers.hard_memory == 9


def test_the_standby_has_slots_too() -> None:
    assert parse(f"{LEAST}[appservers]\nservers = 2\nstandby = 1\n").slots == 12


def test_the_time_to_end_a_hung_appserver_is_probes_and_patience() -> None:
    assert parse(LEAST).time_to_end_hung == 3 * (1 + 2) + 5


def test_a_relative_path_begins_at_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lbadaptor.toml"
    path.write_text(f'{LEAST}[files]\nrun_folder = "run"\nkey_file = "keys"\n')
    settings = load(path)
    assert settings.address_file == tmp_path / "run" / "address.text"
    assert settings.key_file == tmp_path / "keys"


def test_every_default_is_within_its_own_bounds() -> None:
    for name, section in SECTIONS.items():
        if name != "application":
            rows = {key: getattr(section(), key) for key in section.__struct_fields__}
            lines = [f"{key} = {_toml(value)}" for key, value in rows.items()]
            assert getattr(parse(f"{LEAST}[{name}]\n" + "\n".join(lines)), name) == section()


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the section [application] is missing"),
        ('[application]\napp = "a:b"\n', "line 1: the setting [application] session_cookie is missing"),
        (
            '[application]\napp = "a:b"\naffinity = false\n[monitor]\ndrain_limit = 60\n',
            "line 1: the setting [application] session_cookie is missing",
        ),
        ('[application]\napp = "a:b"\nsession_cookie = ""\n', "session_cookie is missing"),
        (f"{LEAST}affinity = true\n[monitor]\ndrain_limit = 60\n", "line 4: [application] affinity = true is for an"),
        (f"{LEAST}affinity = true\n[monitor]\ndrain_limit = 60\n", "goes without session_cookie"),
        (
            '[application]\napp = "a:b"\naffinity = true\nsession_count = "a:c"\n[monitor]\ndrain_limit = 60\n',
            "goes without session_count",
        ),
        (
            '[application]\napp = "a:b"\naffinity = true\n',
            "line 3: [application] affinity = true needs a [monitor] drain_limit",
        ),
        (
            f'{LEAST}session_count = "flsk"\n',
            '[application] session_count = "flsk" is no framework; did you mean flask?',
        ),
        (f'{LEAST}session_count = "a:"\n', "line 4: [application] session_count: expected"),
        (f"{LEAST}[aplication]\n", "line 4: unknown section [aplication]; did you mean application?"),
        (f"{LEAST}[adaptor]\nwiat = 1\n", "line 5: unknown setting [adaptor] wiat; did you mean wait?"),
        (f"{LEAST}[adaptor]\nthreads = 1\n", "line 5: unknown setting [adaptor] threads; it belongs to [appservers]"),
        (f"wait = 1\n{LEAST}", "line 1: unknown setting 'wait'; did you mean [adaptor] wait?"),
        (f'folder = "/"\n{LEAST}', "unknown setting 'folder'"),
        (f"{LEAST}[adaptor]\nwait = -1\n", "line 5: [adaptor] wait: expected"),
        (f"{LEAST}[adaptor]\nwait = 'x'\n", "line 5: [adaptor] wait: expected"),
        (f"{LEAST}[adaptor]\nwait = nan\n", "line 5: [adaptor] wait: expected"),
        (f"{LEAST}[adaptor]\nconnect_timeout = inf\n", "[adaptor] connect_timeout = inf s is longer than a year"),
        (f"{LEAST}[adaptor]\nanswer_timeout = 1e19\n", "[adaptor] answer_timeout = 1e+19 s is longer than a year"),
        (f"{LEAST}[appservers]\nweights = [100, -1]\n", "line 5: [appservers] weights: expected"),
        (f"{LEAST}[appservers]\nwarm_up = ['shop']\n", "line 5: [appservers] warm_up: expected"),
        (f"{LEAST}[appservers]\nwarm_up = ['/a b']\n", "line 5: [appservers] warm_up: expected"),
        (f"{LEAST}[appservers]\nservers = 1\nslots = 2\nweights = [1, 2, 3]\n", "weights: 3; slots: 2"),
        (f"{LEAST}[appservers]\nservers = 2\nstandby = 1\nslots = 3\n", "more than servers = 2 and standby = 1"),
        (
            f"{LEAST}[appservers]\nmax_memory = 9\nhard_memory = 9\n",
            "hard_memory = 9 is not more than max_memory = 9",
        ),
        (f"{LEAST}[adaptor]\npolicy = 'best'\n", "line 5: [adaptor] policy:"),
        (f"{LEAST}[adaptor]\npass_variables = [1]\n", "line 5: [adaptor] pass_variables:"),
        (f"{LEAST}[adaptor]\npass_variables = ['Shop_mode']\n", "line 5: [adaptor] pass_variables:"),
        (f"{LEAST}[monitor]\nheartbeat = 16\n", "line 5: [monitor] heartbeat:"),
        (f"{LEAST}[appservers]\nhost = ''\n", "line 5: [appservers] host:"),
        (f"{LEAST}[appservers]\nhost = 'a b'\n", "line 5: [appservers] host:"),
        (f"{LEAST}[appservers]\nhost = '[::1]'\n", "line 5: [appservers] host:"),
        (f"{LEAST}ticket_cookie = 'a;b'\n", "line 4: [application] ticket_cookie:"),
        (f'{LEAST}ticket_cookie = "a\\n"\n', "line 4: [application] ticket_cookie:"),
        (f"{LEAST}ticket_cookie = ''\n", "line 4: [application] ticket_cookie:"),
        (LEAST.replace("shop.wsgi:", ""), "line 2: [application] app:"),
        ("application = 3\n", "[application]"),
        ("[application\n", "not TOML"),
        (f"{LEAST}app = 'a:b'\n", "not TOML"),
        (f"{LEAST}[appservers]\nenvironment = {{A = 1}}\n", "line 5: [appservers] environment: expected"),
        (f"{LEAST}[appservers.environment]\nA = 1\n", "line 4: [appservers] environment: expected"),
        (f"{LEAST}[appservers]\nenvironment = {{'A B' = '1'}}\n", "line 5: [appservers] environment: expected"),
        (f'{LEAST}[appservers]\nworking_folder = "a\\u0000"\n', "line 5: [appservers] working_folder: expected"),
        (f"{LEAST}[appservers.limits]\nfiles = 1\n", "line 4: [appservers] limits: invalid enum value 'files'"),
        (f"{LEAST}[appservers.limits]\nnofile = -2\n", "line 4: [appservers] limits: expected"),
        (f"{LEAST}[appservers]\numask = 0o1000\n", "line 5: [appservers] umask: expected"),
        # contradictions
        (f"{LEAST}[appservers]\nworking_folder = '{{folder}}'\n", "{folder} is used, but own_folder is not set"),
        (f"{LEAST}[appservers.environment]\nA = '{{folder}}/a'\n", "{folder} is used, but own_folder is not set"),
        (f"{LEAST}[appservers]\nservers = 4\nslots = 4\n", "leaves no slot for a replacement"),
        (f"{LEAST}[appservers]\nbase_port = 65530\n", "beyond port 65535"),
        (f"{LEAST}[adaptor]\nbody_spool = 100\n", "less than body_memory"),
        (
            f"{LEAST}[adaptor]\nanswer_timeout = 14\n",
            "not longer than it takes to find and end a hung AppServer: 14 s",
        ),
        (f"{LEAST}[monitor]\nfailing_limit = 60\n", "not longer than it takes"),
        (f'{LEAST}ticket_cookie = "sid"\n', "the same name"),
        (
            '[application]\napp = "a:b"\naffinity = true\n[monitor]\ndrain_limit = 60\n'
            '[sessions]\nsurvive = "leaving"\n',
            'line 7: [sessions] survive = "leaving" is for sessions, and with [application] affinity = true the',
        ),
        (f'{SURVIVE}save = "a:b"\n', "line 6: [sessions] save goes with load, which is missing"),
        (f'{SURVIVE}load = "a:b"\n', "line 6: [sessions] load goes with save, which is missing"),
        (
            f'{LEAST}[sessions]\nsave = "a:b"\nload = "a:c"\n',
            'line 5: [sessions] save has no use with survive = "nothing"',
        ),
        (
            f"{SURVIVE}max_bytes = 1048575\n",
            "line 6: [sessions] max_bytes = 1048575 is 65535 for each of the 16 slots; at least 65536",
        ),
        (f'{LEAST}[sessions]\nfolder = ""\n', "line 5: [sessions] folder is empty"),
        (
            f'{SURVIVE}folder = "/run/x/../lbadaptor"\n',
            "line 6: [sessions] folder and [files] run_folder are the same folder",
        ),
        (
            f'{SURVIVE}folder = "/a"\n[appservers]\nown_folder = "/a"\n',
            "[sessions] folder and [appservers] own_folder are the same folder",
        ),
        (f'{LEAST}[sessions]\nsurvive = "all"\n', "invalid enum value 'all'; known are nothing, leaving, anything"),
        (f"{LEAST}[sessions]\nmax_files = 0\n", "line 5: [sessions] max_files: expected"),
        (f'{SURVIVE}save = "x"\n', "[sessions] save: expected `module:function`"),
        # one of several machines
        (f"{LEAST}[machine]\nnumber = 1000\n", "line 5: [machine] number: expected"),
        (f"{LEAST}[machine]\nweight = 50\n", "line 5: [machine] weight is for one of several machines: it goes with"),
        (f"{LEAST}[machine]\nsessions = 5\n", "line 5: [machine] sessions is for one of several machines"),
        (f'{LEAST}[machine]\nfront = ["10.0.0.5"]\n', "line 5: [machine] front is for one of several machines"),
        (f'{LEAST}[machine]\nagent = "127.0.0.1:99"\n', "line 5: [machine] agent is for one of several machines"),
        (f"{MACHINE}sessions = 5\n", "line 6: [machine] sessions has no use without agent"),
        (f'{MACHINE}front = ["10.0.0.5", "lb1"]\n', 'line 6: [machine] front: "lb1" is a name; expected the address'),
        (f'{MACHINE}front = ["10.0.0.0/24"]\n', 'front: "10.0.0.0/24" is a network'),
        (f'{MACHINE}front = ["0.0.0.0"]\n', "is the wildcard address"),
        (f'{MACHINE}front = [""]\n', 'front: "" is a name'),
        (f'{MACHINE}front = ["fe80::1%eth0"]\n', 'front: "fe80::1%eth0" is an address with a zone'),
        (f'{MACHINE}agent = "[fe80::1%eth0]:9900"\n', "has an address with a zone, which"),
        (f'{MACHINE}agent = "x"\n', 'line 6: [machine] agent = "x" is not address:port, such as "10.0.0.11:9900"'),
        (f'{MACHINE}agent = "10.0.0.1"\n', "is not address:port"),
        (f'{MACHINE}agent = "fd00::1:99"\n', "is not address:port"),
        (f'{MACHINE}agent = "127.0.0.1:65536"\n', "is not address:port"),
        (f'{MACHINE}agent = "web1:9900"\n', "has a name; expected an address of this machine"),
        (f'{MACHINE}agent = "0.0.0.0:9900"\n', "has the wildcard address; expected"),
        (f'{MACHINE}agent = "[::]:9900"\n', "has the wildcard address"),
        (f'{MACHINE}agent = "224.0.0.1:9900"\n', "has a multicast or broadcast address"),
        (f'{MACHINE}agent = "8.8.8.8:9900"\n', "is a public address"),
        (f'{MACHINE}agent = "[::ffff:8.8.8.8]:9900"\n', "is a public address"),
        (f'{MACHINE}agent = "[2a00:1450::1]:9900"\n', "is a public address"),
        (
            f'{MACHINE}agent = "10.0.0.1:9900"\n',
            "is not loopback, and front, which says who may ask there, is missing",
        ),
        (f'{MACHINE}agent = "127.0.0.1:0"\n', "has port 0"),
        (f'{MACHINE}agent = "127.0.0.1:9015"\n', "takes a port of the AppServers, which are 9000 to 9015"),
        (f'{MACHINE}agent = "127.0.0.1:9000"\n[appservers]\nhost = "0.0.0.0"\n', "takes a port of the AppServers"),
        (f'{MACHINE}agent = "127.0.0.1:9000"\n[appservers]\nhost = "::"\n', "takes a port of the AppServers"),
        (f'{MACHINE}agent = "[::1]:9000"\n[appservers]\nhost = "localhost"\n', "takes a port of the AppServers"),
    ],
)
def test_what_is_unknown_wrong_or_contradictory_is_refused_with_its_place(text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(why)):
        parse(text)


@pytest.mark.parametrize(
    "rows",
    [
        "",
        "weight = 50",
        'agent = "127.0.0.1:9900"\nsessions = 500',
        'agent = "[::1]:9900"',
        'front = ["10.0.0.5", "203.0.113.7", "fd00::5"]',
        'agent = "10.0.0.1:9900"\nfront = ["10.0.0.5"]',
        'agent = "[fd00::1]:9900"\nfront = ["fd00::5"]',
        'agent = "100.64.0.1:9900"\nfront = ["100.64.0.5"]',  # shared address space (RFC 6598), as VPNs have it
        'agent = "127.0.0.1:9016"',
        'agent = "127.0.0.1:8999"',
        'agent = "127.0.0.2:9000"',  # AppServers listen on 127.0.0.1
        'agent = "[::1]:9000"\n[appservers]\nhost = "0.0.0.0"',
        'agent = "127.0.0.1:9000"\n[appservers]\nhost = "web1"',  # it may be another address
    ],
)
def test_one_of_several_machines(rows: str) -> None:
    assert parse(f"{MACHINE}{rows}\n").machine.number == 3


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "web1.example"])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert parse(f'{LEAST}[appservers]\nhost = "{host}"\n').appservers.host == host


def test_a_table_may_stand_in_a_section_of_its_own() -> None:
    text = (
        f"{LEAST}[appservers]\nservers = 2\n[appservers.environment]\nA = '{{slot}}'\n[appservers.limits]\ncore = 0\n"
    )
    servers = parse(text).appservers
    assert (servers.servers, servers.environment, servers.limits) == (2, {"A": "{slot}"}, {"core": 0})


def test_no_spool_means_that_what_is_not_in_memory_is_streamed() -> None:
    assert parse(f"{LEAST}[adaptor]\nbody_spool = 0\n").adaptor.body_spool == 0


def test_the_last_port_may_be_65535() -> None:
    assert parse(f"{LEAST}[appservers]\nbase_port = 65520\n").appservers.base_port == 65520


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file"), (b"\xff", "not UTF-8 text (byte 0)"), (b"x = 1\n", "line 1: unknown setting")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "lbadaptor.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=re.escape(f"{path}: ") + f".*{re.escape(why)}"):
        load(path)


@pytest.mark.parametrize("name", ["folder", "link"])
def test_a_path_that_is_not_utf8_text_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / os.fsdecode(b"not-utf8-\xff")
    folder.mkdir()
    file = folder / "lbadaptor.toml"
    file.write_text('[application]\napp = "a:b"\nsession_cookie = "sid"\n')
    if name == "link":
        (tmp_path / "link.toml").symlink_to(file)
        file = tmp_path / "link.toml"
    with pytest.raises(SettingsError, match="its whole path has to be UTF-8 text") as caught:
        load(file)
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("section", "key"),
    [("files", "run_folder"), ("files", "key_file"), ("appservers", "user"), ("appservers", "host")],
)
def test_a_text_with_a_nul_character_is_refused(section: str, key: str) -> None:
    text = f'[application]\napp = "a:b"\nsession_cookie = "sid"\n[{section}]\n{key} = "a\\u0000b"\n'
    with pytest.raises(SettingsError, match=rf"line 5: \[{section}\] {key}: expected text without a NUL character"):
        parse(text)


def test_settings_cannot_be_changed() -> None:
    settings = parse(LEAST)
    with pytest.raises(AttributeError):
        settings.folder = "/elsewhere"  # type: ignore[misc]


def test_the_reference_has_a_row_for_every_setting() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", reference.page(), re.MULTILINE)
    assert rows == [name for section in SECTIONS.values() for name in section.__struct_fields__]


def test_every_section_of_the_file_is_one_of_settings() -> None:
    assert set(SECTIONS) == set(Settings.__struct_fields__) - {"folder"}
    assert DEFAULT_FILE.is_absolute()


def test_an_appserver_has_a_unix_socket_where_its_path_is_short_enough() -> None:
    settings = parse(f'{LEAST}[files]\nrun_folder = "/run/shop"\n')
    assert settings.unix_socket(12) == "/run/shop/sockets/12"
    room = 107 - len("/run//sockets/7")
    for length, path in ((room, f"/run/{'x' * room}/sockets/7"), (room + 1, "")):
        assert parse(f'{LEAST}[files]\nrun_folder = "/run/{"x" * length}"\n').unix_socket(7) == path


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ('[application]\napp = "/srv/x.py"', '[application] app: expected `module:callable`, such as "shop:'),
        ('[application]\napp = "shop"', "[application] app: expected `module:callable`"),
        (
            '[application]\napp = "a:b"\nticket_cookie = "a b"',
            "[application] ticket_cookie: expected the name of a cookie",
        ),
        (
            '[application]\napp = "a:b"\nsession_count = "1-2"',
            "[application] session_count: expected `module:function`",
        ),
        ('[appservers]\nhost = "a b"', "[appservers] host: expected an address or a name"),
        ('[appservers]\nwarm_up = ["x"]', "[appservers] warm_up: expected a path that begins with /"),
        ('[appservers]\nenvironment = { "1x" = "y" }', "[appservers] environment: expected the name of a variable"),
        ('[appservers]\nenvironment = { x = "\\u0000" }', "[appservers] environment: expected text without a NUL"),
        ('[appservers]\nworking_folder = "\\u0000"', "[appservers] working_folder: expected text without a NUL"),
        ('[appservers]\nwarm_up = ["/", "/\\u0000"]', "[appservers] warm_up: expected text without a NUL"),
        (
            "[appservers]\nlimits = { foo = 1 }",
            "[appservers] limits: invalid enum value 'foo'; known are as, core, cpu, data",
        ),
        ('[adaptor]\npolicy = "x"', "[adaptor] policy: invalid enum value 'x'; known are less-loaded, random"),
        (
            '[adaptor]\npass_variables = ["x"]',
            "[adaptor] pass_variables: expected the name of a variable, in capitals",
        ),
    ],
)
def test_no_pattern_is_shown_to_people(rows: str, said: str) -> None:
    least = "" if "[application]" in rows else '[application]\napp = "a:b"\nsession_cookie = "sid"\n'
    with pytest.raises(SettingsError) as refused:
        parse(f"{least}{rows}\n")
    assert said in str(refused.value)
    assert "regex" not in str(refused.value)


def test_every_pattern_has_its_words() -> None:
    for section, struct in SECTIONS.items():
        for pattern in set(
            re.findall(r"pattern='((?:[^'\\]|\\.)*)'", repr(get_type_hints(struct, include_extras=True)))
        ):
            assert any(repr(known)[1:-1] == pattern for known in EXPECTED), f"[{section}] {pattern}"


def _changed(settings: Settings, section: str, name: str) -> Settings:
    """The settings with another value of one of them."""
    value = getattr(getattr(settings, section), name)
    other: object = {
        "pass_variables": ("SSL_CLIENT_VERIFY",),
        "host": "127.0.0.2",
        "slots": settings.slots + 1,
        "ticket_cookie": "__SHOP__",
        "front": ("10.0.0.5",),
    }.get(name, not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else value)
    if isinstance(value, str) and other == value:
        other = f"{value}x"
    return replace(settings, **{section: replace(getattr(settings, section), **{name: other})})


@pytest.mark.parametrize(
    ("section", "name"), [(section, name) for section, of in SECTIONS.items() for name in of.__struct_fields__]
)
def test_a_setting_needs_a_new_fast_lane_file_exactly_where_that_file_holds_it(section: str, name: str) -> None:
    def lane(settings: Settings) -> str:
        fast = fastlane.snippet(settings, settings.slots, "", "/usr/share/lbadaptor", "shop")
        return lanes.both(lanes.PythonLane.of(settings, "x.conf", Path("/s"), Path("/c"), ""), fast, "")

    settings = parse(LEAST)
    meta = get_args(get_type_hints(SECTIONS[section], include_extras=True)[name])[1]
    steps = meta.extra["takes effect"]
    assert (lane(_changed(settings, section, name)) != lane(settings)) == (
        Step.FAST_LANE in steps or Step.APACHE in steps
    )
    assert (Step.RESTART in steps) == (
        section == "files" or (section, name) in (("sessions", "folder"), ("machine", "number"))
    )
    assert Step.RESTART in steps or steps[0] in (Step.RELEASE, Step.NEW_APPSERVERS, Step.APACHE)
