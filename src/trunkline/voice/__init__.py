"""Calls: from an INVITE or the REST API, through TwiML, to the post-flight document."""
