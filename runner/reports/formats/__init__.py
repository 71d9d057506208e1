"""Report formats, one file each: pure functions from data to text."""
