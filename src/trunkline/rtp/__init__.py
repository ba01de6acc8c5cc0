"""RTP and RTCP (RFC 3550), telephone-event (RFC 4733) and G.711: bytes and arrays, no sockets."""
