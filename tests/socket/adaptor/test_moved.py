"""A session has moved: the request follows it, and no AppServer is asked as if there were none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted import PATIENCE, ScriptedServer, Step, Talk, answer, hang_up, refusal, total
from stage import GENERATION, Site, at_the_first_pause, cookies

from lbadaptor.adaptor.balance import same_for
from lbadaptor.adaptor.error_pages import RETRY_AFTER
from lbadaptor.contract.address import Address, Entry, Identity, State

Serve = Callable[..., ScriptedServer]


def identity(slot: int) -> Identity:
    return Identity(slot, GENERATION + slot)


def _chosen_of(slots: range) -> int:
    """The slot that the hash of the session cookie in `cookies` picks."""
    entries = [Entry("", Address("", 0), State.OK, identity(slot)) for slot in slots]
    return same_for("abc", entries).identity.slot


CHOSEN = _chosen_of(range(3))
HOLDER, THIRD = (slot for slot in range(3) if slot != CHOSEN)


def moved(to: int | None = None) -> bytes:
    """A refusal by an AppServer that has not, or no longer, the session; `to`: the slot that has it."""
    return refusal("MOVED", *([] if to is None else [f"LB-Moved-To: {identity(to)}"]))


def publish(site: Site, servers: dict[int, ScriptedServer | Address], **states: State) -> None:
    """By slot; state by the name of the role."""
    slots = {"holder": HOLDER, "chosen": CHOSEN, "third": THIRD}
    by_slot = {slots[role]: state for role, state in states.items()}
    site.publish(*(site.entry(server, slot, by_slot.get(slot, State.OK)) for slot, server in servers.items()))


def held(site: Site, *slots: int) -> dict[str, str]:
    """For environ: the tickets of these slots' AppServers."""
    return cookies(*(site.keys.ticket(identity(slot)) for slot in slots))


def lost(site: Site) -> dict[str, str]:
    return cookies(site.keys.ticket(Identity(7, 7)))


def verdicts(server: ScriptedServer) -> list[str | None]:
    return [request.get("LB-Session") for request in server.requests]


def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(seconds: float) -> None:
        raise AssertionError(f"a pause of {seconds} s")

    monkeypatch.setattr(time, "sleep", fail)


def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 50))


def only_pauses_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of its own: how often something is tried does not depend on how busy the machine is."""
    now = time.monotonic()

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds / 5

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)


# Where it goes.


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
@pytest.mark.parametrize("body", [b"", b"x", b"x" * 300_000])
def test_what_its_holder_has_given_away_goes_at_once_to_whom_the_hash_picks(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch, method: str, body: bytes
) -> None:
    holder, chosen, third = serve(moved()), serve(), serve()
    publish(site, {HOLDER: holder, CHOSEN: chosen, THIRD: third})
    no_pause(monkeypatch)
    got = site.ask(method, body, **held(site, HOLDER))
    assert (got.status, got.body) == (200, b"hello")
    assert (verdicts(holder), verdicts(chosen), verdicts(third)) == (["held"], ["lost"], [])
    assert [request.body for request in chosen.requests] == [body]
    assert [key for key, _ in got.headers if key.lower().startswith("lb")] == []


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
@pytest.mark.parametrize("body", [b"", b"x", b"x" * 300_000])
def test_whom_the_refusal_names_is_asked_at_once_as_the_holder(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch, method: str, body: bytes
) -> None:
    chosen, third = serve(moved(THIRD)), serve()
    publish(site, {CHOSEN: chosen, THIRD: third})
    no_pause(monkeypatch)
    assert site.ask(method, body, **lost(site)).status == 200
    assert (verdicts(chosen), verdicts(third)) == (["lost"], ["held"])
    assert [request.body for request in third.requests] == [body]
    assert third.requests[0].get("LB-Key") == site.keys.caller_key(site.keys.ticket(identity(THIRD)))
    assert third.requests[0].get("LB-Generation") == str(identity(THIRD).generation)


def test_one_that_has_come_since_the_table_was_read_is_asked_at_once(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = serve()

    def step(talk: Talk) -> None:
        publish(site, {CHOSEN: chosen, THIRD: new})
        talk.send(moved(THIRD))

    chosen = serve(step)
    publish(site, {CHOSEN: chosen})
    no_pause(monkeypatch)
    assert site.ask(**lost(site)).status == 200
    assert verdicts(new) == ["held"]


def test_one_that_is_dying_has_its_sessions_still(site: Site, serve: Serve) -> None:
    chosen, third = serve(moved(THIRD)), serve()
    publish(site, {CHOSEN: chosen, THIRD: third}, third=State.DYING)
    assert site.ask(**lost(site)).status == 200
    assert verdicts(third) == ["held"]


def test_who_gave_it_away_gets_the_request_again_if_it_has_the_session_again(site: Site, serve: Serve) -> None:
    holder, chosen = serve(moved(), answer(b"mine")), serve(moved(HOLDER))
    publish(site, {HOLDER: holder, CHOSEN: chosen})
    assert site.ask("POST", b"x", **held(site, HOLDER)).body == b"mine"
    assert (verdicts(holder), verdicts(chosen)) == (["held", "held"], ["lost"])


def test_whom_the_refusal_names_is_asked_though_it_has_refused_before(site: Site, serve: Serve) -> None:
    chosen, third = serve(refusal("STALE"), answer(b"mine")), serve(moved(CHOSEN))
    publish(site, {CHOSEN: chosen, THIRD: third})
    assert site.ask(**lost(site)).body == b"mine"
    assert (verdicts(chosen), verdicts(third)) == (["lost", "held"], ["lost"])


def test_who_was_named_may_be_chosen_again_though_it_has_refused(site: Site, serve: Serve) -> None:
    stale = refusal("STALE")
    chosen, third = serve(stale, stale, answer(b"mine now")), serve(moved(CHOSEN))
    publish(site, {CHOSEN: chosen, THIRD: third})
    assert site.ask(**lost(site)).body == b"mine now"
    assert (verdicts(chosen), verdicts(third)) == (["lost", "held", "lost"], ["lost"])


def test_the_holders_of_other_tickets_are_not_asked_for_what_has_moved(site: Site, serve: Serve) -> None:
    holder, chosen, third = serve(moved()), serve(), serve()
    publish(site, {HOLDER: holder, CHOSEN: chosen, THIRD: third})
    assert site.ask(**held(site, HOLDER, THIRD)).status == 200
    assert (total(holder), total(chosen), total(third)) == (1, 1, 0)


@pytest.mark.parametrize("ticket", [[], ["forged"]])
def test_a_visitor_without_a_ticket_whose_session_has_moved_is_lost_and_not_new(
    site: Site, serve: Serve, ticket: list[str]
) -> None:
    def step(talk: Talk) -> None:
        talk.read_body()
        talk.send(moved() if talk.request.get("LB-Session") == "none" else answer())

    servers = [serve(default=step) for _ in range(2)]
    site.publish_servers(*servers)
    assert site.ask("POST", b"x", **cookies(*ticket)).status == 200
    assert sorted(str(verdict) for server in servers for verdict in verdicts(server)) == ["lost", "none"]


def test_all_parallel_requests_of_a_visitor_meet_at_one_appserver(site: Site, serve: Serve) -> None:
    """Whatever their tickets: of the AppServer that gave the session away, or of one that is gone."""
    together = threading.Barrier(20)

    def step(talk: Talk) -> None:
        talk.read_body()
        together.wait(PATIENCE)  # all are at work at once
        talk.send(answer())

    chosen = _chosen_of(range(5))
    holder = (chosen + 1) % 5
    servers = {slot: serve(default=moved() if slot == holder else step) for slot in range(5)}
    publish(site, {**servers})
    visitors = [held(site, holder), lost(site)] * 10
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda environ: site.ask("POST", b"x", **environ).status, visitors))
    assert statuses == [200] * 20
    assert {slot: total(server) for slot, server in servers.items() if total(server)} == {chosen: 20, holder: 10}
    assert set(verdicts(servers[chosen])) == {"lost"}


# It waits.


def test_one_that_is_not_in_the_table_is_waited_for(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(wait=PATIENCE)
    chosen, new = serve(default=moved(THIRD)), serve(answer(b"mine"))
    publish(site, {CHOSEN: chosen})
    at_the_first_pause(monkeypatch, lambda: publish(site, {CHOSEN: chosen, THIRD: new}))
    assert site.ask("POST", b"x", **lost(site)).body == b"mine"
    assert (verdicts(chosen), verdicts(new)) == (["lost", "lost"], ["held"])


@pytest.mark.parametrize("kind", ["STALE", "DYING", "INCOMPLETE", "KEY", "MOVED", "connection"])
def test_if_the_named_one_refuses_the_chosen_one_is_asked_again_after_a_pause(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch, refusing_address: Address, kind: str
) -> None:
    site.configure(wait=PATIENCE)
    chosen = serve(moved(THIRD), answer(b"mine now"))
    asked: list[int] = []
    third: ScriptedServer | Address = refusing_address
    if kind != "connection":
        third = serve(refusal(kind, *(f"LB-Moved-To: {identity(7)}" for _ in range(kind == "MOVED"))))
    publish(site, {CHOSEN: chosen, THIRD: third})
    at_the_first_pause(monkeypatch, lambda: asked.append(total(chosen)))
    assert site.ask("POST", b"x", **lost(site)).body == b"mine now"
    assert asked == [1]
    assert verdicts(chosen) == ["lost", "lost"]
    if isinstance(third, ScriptedServer):
        assert verdicts(third) == ["held"]


def test_if_the_named_one_is_busy_it_is_asked_again(site: Site, serve: Serve) -> None:
    site.configure(wait=PATIENCE)
    chosen, third = serve(moved(THIRD)), serve(refusal("BUSY"), refusal("BUSY"), answer(b"mine"))
    publish(site, {CHOSEN: chosen, THIRD: third})
    assert site.ask("POST", b"x", **lost(site)).body == b"mine"
    assert (verdicts(chosen), verdicts(third)) == (["lost"], ["held"] * 3)


def test_if_the_named_one_dies_under_the_request_it_is_repeated_once_where_it_may_be(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, chosen, third = serve(default=moved(THIRD)), serve(answer(b"mine now")), serve(default=hang_up)
    publish(site, {HOLDER: holder, CHOSEN: chosen, THIRD: third})
    at_the_first_pause(monkeypatch, lambda: publish(site, {HOLDER: holder, CHOSEN: chosen}))
    assert site.ask(**held(site, HOLDER)).body == b"mine now"
    assert (verdicts(holder), verdicts(chosen), verdicts(third)) == (["held"], ["lost"], ["held"])
    publish(site, {HOLDER: holder, CHOSEN: chosen, THIRD: third})
    assert site.ask("POST", b"x", **held(site, HOLDER)).status == 502
    assert (total(holder), total(chosen), total(third)) == (2, 1, 2)


def test_one_that_was_busy_is_asked_again_after_the_pause(site: Site, serve: Serve) -> None:
    site.configure(wait=PATIENCE)
    chosen, third = serve(refusal("BUSY"), answer(b"mine now")), serve(moved(7))
    publish(site, {CHOSEN: chosen, THIRD: third})
    assert site.ask("POST", b"x", **lost(site)).body == b"mine now"
    assert (verdicts(chosen), verdicts(third)) == (["lost", "lost"], ["lost"])


def test_one_that_is_named_after_a_long_wait_is_asked(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(wait=PATIENCE)
    chosen, third = serve(*[moved(7)] * 12, moved(THIRD)), serve(answer(b"mine"))
    publish(site, {CHOSEN: chosen, THIRD: third})
    short_pauses(monkeypatch)
    assert site.ask("POST", b"x", **lost(site)).body == b"mine"
    assert verdicts(third) == ["held"]


def test_a_failing_one_gets_only_a_few(site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    site.configure(wait=PATIENCE)
    arrived, go = threading.Semaphore(0), threading.Event()

    def hang(talk: Talk) -> None:
        arrived.release()
        assert go.wait(PATIENCE)
        talk.send(answer())

    chosen, third = serve(default=moved(THIRD)), serve(default=hang)
    publish(site, {CHOSEN: chosen, THIRD: third}, third=State.FAILING)
    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(lambda: site.ask(**lost(site)).status) for _ in range(2)]
        for _ in asking:
            assert arrived.acquire(timeout=PATIENCE)
        no_pause(monkeypatch)
        assert [site.ask(**lost(site)).status for _ in range(3)] == [503] * 3
        go.set()
        assert [one.result(PATIENCE) for one in asking] == [200, 200]
    assert total(third) == 2


def test_the_only_one_is_not_asked_again_by_the_ticket_that_counts_no_more(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(wait=PATIENCE)
    holder, chosen = serve(default=moved()), serve()
    publish(site, {HOLDER: holder}, holder=State.DYING)
    at_the_first_pause(monkeypatch, lambda: publish(site, {HOLDER: holder, CHOSEN: chosen}, holder=State.DYING))
    assert site.ask("POST", b"x", **held(site, HOLDER)).status == 200
    assert (verdicts(holder), verdicts(chosen)) == (["held"], ["lost"])


WRONG = [
    *("nonsense", "x" * 100_000, "-1.5", "1.5, 2.6", "1", ".", "%31.5", "\xb2.\xb3"),
    *(
        f"0{identity(THIRD)}",
        f"+{identity(THIRD)}",
        f"{identity(THIRD)}.",
        f"{identity(THIRD)}x",
        f'"{identity(THIRD)}"',
    ),
]


@pytest.mark.parametrize("value", WRONG)
def test_who_is_named_wrongly_is_nobody_in_the_table(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    site.configure(wait=PATIENCE)
    wrong = answer(b"no\n", "421 Misdirected Request", "LB-Refused: MOVED").replace(
        b"LB-Refused", b"LB-Moved-To: %b\r\nLB-Refused" % value.encode("latin-1")
    )
    holder, chosen, third = serve(wrong), serve(), serve()
    publish(site, {HOLDER: holder, CHOSEN: chosen, THIRD: third})
    asked: list[int] = []
    at_the_first_pause(monkeypatch, lambda: asked.append(total(chosen)))
    assert site.ask("POST", b"x", **held(site, HOLDER)).status == 200
    assert asked == [0]
    assert (verdicts(chosen), verdicts(third)) == (["lost"], [])


# Its bounds.


def test_two_that_send_a_request_to_each_other_do_so_eight_times(
    site: Site, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    site.configure(wait=PATIENCE)
    chosen, third = serve(default=moved(THIRD)), serve(default=moved(CHOSEN))
    publish(site, {CHOSEN: chosen, THIRD: third})
    got = site.ask("POST", b"x", **lost(site))
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert (total(chosen), total(third)) == (5, 4)
    assert f"503 POST /cart: AppServer {identity(CHOSEN)}: refused: MOVED: to '{identity(THIRD)}'" in caplog.text


def test_two_that_send_a_request_to_each_other_do_so_for_as_long_as_it_may_wait(site: Site, serve: Serve) -> None:
    site.configure(wait=0.01)
    chosen, third = serve(default=moved(THIRD)), serve(default=moved(CHOSEN))
    publish(site, {CHOSEN: chosen, THIRD: third})
    assert site.ask(**lost(site)).status == 503
    assert 2 <= total(chosen, third) <= 4


@pytest.mark.parametrize("step", [moved(), moved(7), moved(HOLDER), moved(THIRD)], ids=["", "7", "refuses", "gone"])
def test_a_session_that_nobody_hands_out_is_waited_for_till_the_time_is_over(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch, refusing_address: Address, step: Step
) -> None:
    """Longer than eight hops: an AppServer that hangs has the session until it is ended."""
    site.configure(wait=0.2)
    chosen, holder = serve(default=step), serve(default=refusal("DYING"))
    publish(site, {CHOSEN: chosen, HOLDER: holder, THIRD: refusing_address}, holder=State.DYING)
    only_pauses_last(monkeypatch)
    began = time.monotonic()
    got = site.ask("POST", b"x", **lost(site))
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert time.monotonic() - began >= 0.2
    assert total(chosen) > 9
    assert set(verdicts(chosen)) == {"lost"}


def test_only_so_many_wait_for_a_move_and_others_wait_besides(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(wait=PATIENCE, waiters=1)
    chosen = serve(moved(7), moved(7), answer(b"mine now"), moved(7), answer(b"there is room again"))
    third = serve(refusal("BUSY"), answer(b"had no time"))
    publish(site, {CHOSEN: chosen, THIRD: third})
    others: list[tuple[int, bytes]] = []

    def meanwhile() -> None:
        for environ in (lost(site), held(site, THIRD)):
            got = site.ask(**environ)
            others.append((got.status, got.body if got.status == 200 else b""))

    at_the_first_pause(monkeypatch, meanwhile)
    assert site.ask(**lost(site)).body == b"mine now"
    assert others == [(503, b""), (200, b"had no time")]
    assert site.ask(**lost(site)).body == b"there is room again"


def test_a_body_that_is_not_kept_cannot_follow(site: Site, serve: Serve) -> None:
    site.configure(body_memory=1000, body_spool=0)
    holder, chosen, third = serve(moved(), moved(THIRD)), serve(), serve()
    publish(site, {HOLDER: holder, CHOSEN: chosen, THIRD: third})
    for _ in range(2):
        assert site.ask("POST", b"x" * 300_000, **held(site, HOLDER)).status == 503
    assert (total(holder), total(chosen, third)) == (2, 0)


def test_nothing_is_in_flight_when_all_is_done(site: Site, serve: Serve) -> None:
    chosen, third = serve(moved(THIRD)), serve()
    publish(site, {CHOSEN: chosen, THIRD: third})
    assert site.ask(**lost(site)).status == 200
    assert [site.adaptor.backends.load(entry).in_flight for entry in site.adaptor.backends.table().entries] == [0, 0]
