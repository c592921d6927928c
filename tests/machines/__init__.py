"""Three machines behind a real HAProxy, their visitors, and what is done to them.

`site.py` puts it together: `places.py` is where machines live, `host.py` is what runs on one, `machine.py` one as a
test sees it, `front.py` HAProxy, `load.py` the visitors, and `verdict.py` the rules for what they saw.

`python -m tests.machines` prints a transcript.
"""
