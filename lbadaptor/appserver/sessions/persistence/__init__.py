"""Sessions in files: one a session, in a folder for each AppServer, so that they outlive their process.

- `format`: what is in a file. Pure
- `safe_open`: files and folders are opened without links, and only those of this user
- `folder`: an AppServer's own folder; how a session goes from one AppServer to another
- `sweep`: what dead AppServers have left, and sessions that have ended
"""
