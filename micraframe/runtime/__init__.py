"""What the computations run on: devices, memory, files and locks."""
