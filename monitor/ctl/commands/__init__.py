"""The commands of lbctl, a file each, in which `command` is the command and `run` does it.

`order` is the command of every order that has no file of its own. `base` has what all commands have in common.
`which_monitor` finds the monitor that is meant.
"""
