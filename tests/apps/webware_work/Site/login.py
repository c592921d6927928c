import json
import os

from HTTPServlet import HTTPServlet


class login(HTTPServlet):
    def respondToGet(self, transaction):
        transaction.session()["user"] = transaction.request().field("user")
        told = {"pid": os.getpid()}
        transaction.response().setHeader("Content-Type", "application/json")
        transaction.response().write(json.dumps(told))

    respondToPost = respondToGet
