"""A visit counter in Django, with its sessions in the cache of its process (locmem)."""

from __future__ import annotations

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    SECRET_KEY="a test's",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE=os.environ.get("SESSION_ENGINE", "django.contrib.sessions.backends.cache"),
    SESSION_COOKIE_AGE=int(os.environ.get("SESSION_SECONDS", "3600")),
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 100_000},
        }
    },
)


def count(request: HttpRequest) -> JsonResponse:
    visits = request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"pid": os.getpid(), "visits": visits, "user": request.session.get("user")})


@csrf_exempt
def login(request: HttpRequest, user: str) -> JsonResponse:
    request.session.cycle_key()
    request.session["user"] = user
    return JsonResponse({"pid": os.getpid()})


def logout(request: HttpRequest) -> JsonResponse:
    request.session.flush()
    return JsonResponse({"pid": os.getpid()})


def plain(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"pid": os.getpid()})


urlpatterns = [
    path("count", count),
    path("login/<str:user>", login),
    path("logout", logout),
    path("plain", plain),
]
application = get_wsgi_application()
