"""Rank processes: started, joined by links, given commands, watched."""
