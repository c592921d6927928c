"""HTTP/1.1 without a socket or a clock (RFC 9112): as both adaptor and AppServer read it."""
