"""A visit counter in CherryPy, with its sessions in the memory of its process (RamSession)."""

from __future__ import annotations

import os
from typing import Any

import cherrypy
from cherrypy.lib import sessions


class Visits:
    @cherrypy.expose
    @cherrypy.tools.json_out()
    def count(self) -> dict[str, Any]:
        visits = cherrypy.session["visits"] = cherrypy.session.get("visits", 0) + 1
        return {"pid": os.getpid(), "visits": visits, "user": cherrypy.session.get("user")}

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def login(self, user: str) -> dict[str, Any]:
        cherrypy.session["user"] = user  # reads what is there, before it gets another name
        cherrypy.session.regenerate()
        return {"pid": os.getpid()}

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def logout(self) -> dict[str, Any]:
        sessions.expire()
        cherrypy.session.delete()
        cherrypy.session.loaded = False  # or it would be saved again
        return {"pid": os.getpid()}

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def plain(self) -> dict[str, Any]:
        return {"pid": os.getpid()}


cherrypy.config.update({"environment": "embedded", "log.screen": False})
application = cherrypy.Application(
    Visits(),
    "",
    {
        "/": {
            "tools.sessions.on": True,
            "tools.sessions.persistent": False,
            "tools.sessions.timeout": float(os.environ.get("SESSION_SECONDS", "3600")) / 60,
        },
        "/plain": {"tools.sessions.on": False},
    },
)
