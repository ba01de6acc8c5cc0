"""Learning mode: a candidate follows the work that production has accepted, and is compared with it."""
