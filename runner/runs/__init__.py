"""Use cases: run a manifest, preview a run, reconcile doubts, follow jobs, and write the record."""
