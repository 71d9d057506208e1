"""YAML text to a Manifest, or every problem in it at once."""
