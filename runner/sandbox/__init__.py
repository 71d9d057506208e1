"""The Pixxel API on loopback, for trying things out and for rehearsing faults. Nothing here costs anything."""
