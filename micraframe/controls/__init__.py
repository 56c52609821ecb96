"""Controls: methods that learn nothing of where structures are, which a method worth its annotation must beat."""
