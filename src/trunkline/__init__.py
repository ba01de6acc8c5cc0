"""Trunkline: a self-hosted voice and SMS platform that speaks Twilio's public API."""

__version__ = "0.1.0"
