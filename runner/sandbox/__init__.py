"""A local server with the Pixxel API, for trying things out and rehearsing faults. Its jobs cost nothing."""
