"""Simulated phones: SIP endpoints in software, each with a number, played by tests and from the terminal."""
