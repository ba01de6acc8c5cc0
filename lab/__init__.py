"""The lab: a whole cluster on one machine, in network namespaces, and the faults that it must survive.

    make cluster                three zones of engines and nodes; a live table; Ctrl-C ends all of it
    make cluster ARGS=--edge    with Kamailio in front of the nodes' SIP
    make chaos                  faults under load, and what the outside saw of them

Everything that it makes carries the lab's name and is written down before it is made (`made.py`), so that the next
start can remove what a killed lab has left, and nothing else. See docs/howto/cluster.md.
"""
