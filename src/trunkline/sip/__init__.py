"""SIP (RFC 3261): messages, transactions, dialogs, offer/answer. Sans-IO but for transport.py."""
