"""The commands of lbctl, a file each, with two functions: `arguments` adds options to a parser, `run` does it.

`order` is the command of every order that has no file of its own. `which_monitor` finds the monitor that is meant.
"""
