"""The sections of lbadaptor.toml: a module for each, and in it a row for each setting (`row`)."""
