"""Controls: methods that learn nothing about where structures are, which any useful method must beat."""
