"""state.json: whole or not at all, of this boot alone."""

import json
import logging
import os
from pathlib import Path

import pytest
from msgspec import structs
from msgspec.structs import fields

from monitor.arbiter.files.state_json import StateFile
from monitor.contract.messages import ProbeAnswer
from monitor.contract.processes import boot_id
from monitor.policy.life import Life, Reason, Supervision
from monitor.policy.states import LifeState

BEFORE = Path(__file__).with_name("former_state.json")
"""As the release before `Life` wrote it: a DYING one that fails, a drain that was taken back, an intent to fork."""
LIFE = Life(
    slot=2,
    generation=1700,
    pid=4711,
    started=99,
    host="h",
    port=9002,
    state=LifeState.DYING,
    leaving={Reason.LIMIT, Reason.END_SESSIONS},
    undrained=True,
    since=12.5,
    born=10.0,
    standby=True,
    ready_at=11.0,
    draining_since=12.0,
    own_folder="/own/2.1700",
    ticket_cookie="__PRT__",
    because="user anna (process 4711)",
    needs_more=True,
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    StateFile(tmp_path / "state.json").write([LIFE], 1800)
    after = StateFile(tmp_path / "state.json")
    assert (after.read(), after.last_generation) == ([LIFE], 1800)
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_life_is_written_whole(tmp_path: Path) -> None:
    """But for what the next monitor has to see for itself."""
    defaults = {field.name for field in fields(LIFE) if getattr(LIFE, field.name) == field.default}
    assert defaults == {"before_failing"}, "each field has a value of its own here"
    watched = structs.replace(LIFE, supervision=Supervision(sessions=3, killed="why", failed_probes=2, deadline=9.0))
    StateFile(tmp_path / "state.json").write([watched], 1800)
    assert StateFile(tmp_path / "state.json").read() == [LIFE]
    (written,) = json.loads((tmp_path / "state.json").read_text())["appservers"]
    assert written.keys() == {field.encode_name for field in fields(LIFE)}
    assert written["supervision"] == {}


def test_what_probes_show_does_not_cause_another_write(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    file.write([LIFE], 1800)
    written = (tmp_path / "state.json").stat()
    file.write([structs.replace(LIFE, supervision=Supervision(sessions=3, answer=ProbeAnswer(1700)))], 1800)
    assert (tmp_path / "state.json").stat() == written


def test_the_file_of_the_release_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(BEFORE.read_text().replace("BOOT", boot_id()))
    file = StateFile(path)
    assert file.read() == [
        Life(
            slot=0,
            generation=1763805600000,
            pid=4711,
            started=9912,
            host="127.0.0.1",
            port=9000,
            state=LifeState.FAILING,
            before_failing=LifeState.DYING,
            leaving={Reason.LIMIT, Reason.END_SESSIONS, Reason.RELEASE},
            since=112.5,
            born=10.25,
            ready_at=11.5,
            own_folder="/var/lib/lbadaptor/own/0.1763805600000",
            ticket_cookie="__PRT__",
            needs_more=True,
        ),
        Life(
            slot=1,
            generation=1763805600001,
            pid=4712,
            started=9913,
            host="127.0.0.1",
            port=9001,
            state=LifeState.OK,
            leaving={Reason.ORDER},
            undrained=True,
            since=20.0,
            born=10.5,
            standby=True,
            ready_at=20.0,
            ticket_cookie="__PRT__",
        ),
        Life(slot=2, generation=1763805600002, host="127.0.0.1", port=9002, since=120.0, born=120.0),
    ]
    assert file.last_generation == 1763805600002


def test_the_release_before_finds_all_that_it_reads(tmp_path: Path) -> None:
    """A return to that release adopts our AppServers, too."""
    path = tmp_path / "state.json"
    StateFile(path).write([LIFE], 1800)
    ours, theirs = json.loads(path.read_text()), json.loads(BEFORE.read_text())
    assert ours.keys() == theirs.keys()
    for key, value in ours["appservers"][0].items():
        known = [one[key] for one in theirs["appservers"] if key in one and one[key] is not None]
        assert all(type(value) is type(one) for one in known), key
    assert ours["appservers"][0].keys() - theirs["appservers"][0].keys() == {
        *("draining_since", "because", "supervision"),
    }


def test_the_same_is_not_written_twice(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    file.write([LIFE], 1800)
    written = (tmp_path / "state.json").stat()
    file.write([LIFE], 1800)
    assert (tmp_path / "state.json").stat() == written
    file.write([LIFE], 1801)
    assert (tmp_path / "state.json").stat() != written


def test_a_deleted_or_locked_file_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path)
    file.write([LIFE], 1800)
    path.unlink()
    file.write([LIFE], 1800)
    path.chmod(0)
    file.write([LIFE], 1800)
    assert path.stat().st_mode & 0o777 == 0o600
    assert StateFile(path).read() == [LIFE]


def test_of_another_boot_only_the_generation_counts(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    file.write([LIFE], 1800)
    content = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**content, "boot": "another"}))
    assert (file.read(), file.last_generation) == ([], 1800)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot": "x"}', '{"boot": 1, "last_generation": 1}'])
def test_nonsense_is_said_and_nothing_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / "state.json").write_text(content)
    assert StateFile(tmp_path / "state.json").read() == []
    assert "going by address.text" in caplog.text


def test_one_that_cannot_be_written_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    file = StateFile(folder / "state.json")
    with caplog.at_level(logging.ERROR):
        file.write([LIFE], 1)
        file.write([LIFE], 1)
    assert len(caplog.records) == 1
    folder.mkdir()
    file.write([LIFE], 1)
    assert StateFile(folder / "state.json").read() == [LIFE]
