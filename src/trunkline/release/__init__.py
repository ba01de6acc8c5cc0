"""Releases by their risk: what a change touches says what it must show before it reaches production.

change.py reads a change out of git, risk.py classes it by `risk.toml`, evidence.py keeps what was shown (signed,
chained, as post-flight documents), gates.py says what is missing, people.py who may sign for what, canary.py whether
the new version does worse than the old, performance.py whether it costs more, steps.py takes it from node to node.
"""
