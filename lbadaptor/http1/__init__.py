"""HTTP/1.1 (RFC 9112) for both sides, without a socket or a clock: bytes in, heads and pieces of bodies out.

`lines` reads the lines of a head, `framing` says where a body ends, `chunks` reads and writes chunks. `request` is
the server's side and `response` the client's side. `states` holds the states of a server's connection.
"""
