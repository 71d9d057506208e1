"""YAML text into plain values with positions, or every surprise in it as a problem."""
