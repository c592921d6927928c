"""Which sessions live in an AppServer, and the ticket that goes along with them."""
