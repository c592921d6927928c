"""Processes: started, adopted, told, ended."""
