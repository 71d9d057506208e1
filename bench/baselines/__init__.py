"""What a person would write instead: scripts that send, and do nothing else. Each is run as a program of its own."""
