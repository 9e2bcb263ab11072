"""From volumes as they were acquired to network inputs: geometry first, then intensity."""
