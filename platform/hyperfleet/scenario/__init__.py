"""What a run is made of: devices, when they ask, what they film, their networks, faults and policies."""
