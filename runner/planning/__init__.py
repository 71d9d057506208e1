"""What a run would send, and why: the manifest compared with the ledger."""
