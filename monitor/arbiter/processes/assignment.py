"""What an AppServer or a template is told by the monitor: from the settings that hold when it is started."""

from __future__ import annotations

from lbadaptor.appserver.process import messages
from lbadaptor.contract.address import Identity
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import Keys
from monitor.arbiter.files import installation, session_folder
from monitor.policy.life import own_limits


def assignment(settings: Settings, identity: Identity, keys: Keys, now: float) -> messages.Assignment:
    """What an AppServer is to be. `now` is monotonic seconds."""
    servers, application, sessions = settings.appservers, settings.application, settings.sessions
    max_requests, max_age = own_limits(servers, identity.generation)
    ticket = keys.ticket(identity)
    return messages.Assignment(
        app=application.app,
        session_cookie=application.session_cookie,
        session_idle=application.session_idle,
        session_count=application.session_count,
        affinity=application.affinity,
        ticket_cookie=application.ticket_cookie,
        threads=servers.threads,
        queue=servers.queue,
        answer_memory=settings.adaptor.answer_memory,
        max_requests=max_requests,
        max_age=max_age,
        max_memory=servers.max_memory,
        warm_up=servers.warm_up,
        start_timeout=settings.monitor.start_timeout,
        ready_by=now + settings.monitor.start_timeout,
        stop_grace=settings.monitor.stop_grace,
        generation=identity.generation,
        ticket=ticket,
        caller_key=keys.caller_key(ticket),
        probe_key=keys.probe_key(ticket),
        unix_socket=settings.unix_socket(identity.slot),
        survive=sessions.survive,
        session_folder=str(session_folder.path_of(settings)),
        session_max_bytes=sessions.max_bytes // settings.slots,
        session_max_files=max(1, sessions.max_files // settings.slots),
        session_save=sessions.save,
        session_load=sessions.load,
        access_log=settings.access_log,
        run_folder=installation.name(settings),
    )


def preload(settings: Settings, now: float) -> messages.Preload:
    """What a template is to import. `now` is monotonic seconds."""
    application, sessions, most = settings.application, settings.sessions, settings.monitor.start_timeout
    return messages.Preload(
        application.app, application.session_count, most, now + most, sessions.save, sessions.load
    )
