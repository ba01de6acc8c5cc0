"""The supervisor: a small process that starts the others, starts them again, and keeps what must outlive them.

It keeps the listening sockets (API, SMPP, SIP), the RTP sockets and the media process's shared memory, so that a
process that dies is replaced by one that goes on with the same calls, and one that is to be replaced hands over without
a failed request (trunkline.supervisor.handover). It imports the standard library alone.
"""
