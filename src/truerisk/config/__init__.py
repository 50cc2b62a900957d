"""A configuration: composed, explained where it is wrong, and checked against what it configures.

Nothing here imports torch: ``truerisk parts`` and ``--cfg job`` answer at once.
"""
