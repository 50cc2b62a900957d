"""``python -m benchmarks.faults [NAME…] [--quick]``: what holds when something dies.

Each part kills the same piece of work at every operation on a file or a database in turn, or breaks
something else, gives the command again, and counts what was lost, doubled or changed by it.
"""
