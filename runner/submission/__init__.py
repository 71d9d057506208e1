"""The engine that sends jobs: what may be sent again, when, and within which budget."""
