"""The Pixxel API over HTTP: what is sent, how it is retried, and what a response says."""
