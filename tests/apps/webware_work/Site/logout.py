import json
import os

from HTTPServlet import HTTPServlet


class logout(HTTPServlet):
    def respondToGet(self, transaction):
        transaction.session().invalidate()
        told = {"pid": os.getpid()}
        transaction.response().setHeader("Content-Type", "application/json")
        transaction.response().write(json.dumps(told))

    respondToPost = respondToGet
