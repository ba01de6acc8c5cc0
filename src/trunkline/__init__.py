"""Trunkline: a self-hosted SMS platform, voice to follow, that speaks Twilio's public API."""

__version__ = "0.1.0"
