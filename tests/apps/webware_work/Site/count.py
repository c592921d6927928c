import json
import os

from HTTPServlet import HTTPServlet


class count(HTTPServlet):
    def respondToGet(self, transaction):
        session = transaction.session()
        session["visits"] = session.value("visits", 0) + 1
        told = {"pid": os.getpid(), "visits": session["visits"], "user": session.value("user", None)}
        transaction.response().setHeader("Content-Type", "application/json")
        transaction.response().write(json.dumps(told))

    respondToPost = respondToGet
