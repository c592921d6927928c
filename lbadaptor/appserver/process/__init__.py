"""The AppServer as a process: its messages with the monitor, its signals, its forks, reports of a failed start."""
