"""`lbctl demo`, and its private httpd."""
