"""Controls: methods that see next to nothing, which a method worth its annotation must beat."""
