"""Controls: methods that hardly look at the image, which a method worth its annotation must beat."""
