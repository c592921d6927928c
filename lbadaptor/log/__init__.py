"""The log of all programs, and texts for people.

The application shares the processes of this package. It may close, replace or configure `logging`, `sys.stderr` and
descriptor 2, and the reader of standard error may be stopped. None of this loses a line in silence, raises an
exception in a thread of this package, or makes the arbiter wait. So the loggers have the calls of `logging`, but
share nothing with it.

- `loggers`: loggers, levels, and how a record becomes lines
- `writer`: writes lines to a descriptor without waiting for a reader; a bounded buffer; counts what is lost
- `descriptors`: private duplicates of a descriptor, and writing to them without blocking
- `wsgi_errors`: `wsgi.errors` of PEP 3333
- `standard_error`: makes standard error the log of this program; flush; exceptions that nobody catches
- `once`: whether something that lasts was logged already
- `texts`: texts for people, made of what others have written
- `logs`: what other packages use of all these

What the application itself writes to standard output or standard error (`print`) is not written by this package. It
blocks the thread that writes when the reader has stopped, as in any program: whether a descriptor blocks belongs to
the open file description, which is shared with the reader's side and with other programs, so this package must not
change it. `wsgi.errors` does not block for longer than a second.
"""
