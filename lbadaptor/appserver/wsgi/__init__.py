"""The AppServer's side of PEP 3333."""
