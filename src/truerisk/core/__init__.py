"""The ground floor: what any part may use, and what imports nothing above it."""
