"""Applications to try lbadaptor with."""
