"""A WSGI application without sessions, but with a cache in the memory of its process: what is dear to compute is
computed once for each process that is asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

Environ = dict[str, Any]


@lru_cache(maxsize=1000)
def _primes_below(number: int) -> int:
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, number))


def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """How many primes there are `below` a number, and whether the cache knew. `cache` is the Cache-Control."""
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    hits = _primes_below.cache_info().hits
    primes = _primes_below(int(query.get("below", "1000")))
    told = {
        "primes": primes,
        "cached": _primes_below.cache_info().hits > hits,
        "pid": os.getpid(),
        "lost": environ["lbadaptor.session_lost"],
    }
    headers = [("Content-Type", "application/json")]
    if "cache" in query:
        headers.append(("Cache-Control", query["cache"]))
    start_response("200 OK", headers)
    return [json.dumps(told).encode()]
