import json
import os

from HTTPServlet import HTTPServlet


class plain(HTTPServlet):
    def respondToGet(self, transaction):
        told = {"pid": os.getpid()}
        transaction.response().setHeader("Content-Type", "application/json")
        transaction.response().write(json.dumps(told))

    respondToPost = respondToGet
