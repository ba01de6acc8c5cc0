"""Several nodes that are one service: who is there, who owns what, and the fence that keeps two from sending for one.

    fence       may this node send now (one comparison)
    records     what lies in the MemoryStore
    votes       promises between nodes, and who may call one lost
    membership  the node's own lease; which others are alive
    placement   who ought to own what (pure)
    ownership   owning and letting go of partitions, connectors, trunks, singletons
    peers       calls from node to node

docs/design/availability.md has the argument for why no two own one thing.
"""
