"""The AppServer: a process that serves the user's WSGI application to the adaptors. Its public face is `main.main`.

Nothing is imported here: the monitor, which needs no more than the messages, would carry an AppServer in its memory.
"""
