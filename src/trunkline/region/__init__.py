"""Several regions: which one is active, how another one takes its place, and what was lost by it.

A region is a whole cluster. One is active; the PostgreSQL clusters of the others follow its own, asynchronously. What
decides is the *epoch*: a number with the active region's name, written once into the object store that all regions
share (`witness`), and then into the databases. `rules` says what a node makes of what it sees, `guard` keeps asking
while it runs, `promotion` makes another region the active one, `compare` counts what the former one alone had. The
argument is in docs/design/regions.md.
"""
