"""Audio: the 20 ms tick engine in its own process, prompts, recordings, tones, and speech synthesis."""
