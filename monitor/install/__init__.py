"""`lbctl install` and `lbctl uninstall`: one application on Debian's Apache and systemd.

`wanted` is what an administrator says, `facts` what is on the machine, and `plan` what both come to (pure, as `diff`
and `virtual_hosts` are). `checks` says what stands against it, `prepare` brings all that together, `doing` does it,
`page` waits for a page, and `taking_back` takes it back by the `records`. All reach files and commands through
`machine`, so a test can give them a folder for the root and a runner of its own.
"""
